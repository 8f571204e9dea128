/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Keeps a VM with a vCPU open for a machine's life, on x86 a second one with interrupt controllers in the
 * kernel, and says what its KVM can do.
 *
 * hold NUMBER...   prints one line, `default NUMBER=VALUE... software-protected NUMBER=VALUE...`, what
 * KVM_CHECK_EXTENSION answers on a VM of each type that can be made, and then sleeps. Without KVM it
 * prints the reason on stderr and fails.
 *
 * Stock x86 kernels crash under multi-threaded emulation when a static key is switched on and off repeatedly,
 * because code is patched each time. KVM has such keys for the first VM, the first vCPU without a local APIC,
 * and the first whose local APIC is off, as it is at reset: with these two VMs always there none is switched.
 *
 * Made for the C library of any kernel header: it needs none of KVM's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define KVMIO 0xae
#define KVM_CREATE_VM _IO(KVMIO, 0x01)
#define KVM_CHECK_EXTENSION _IO(KVMIO, 0x03)
#define KVM_CREATE_VCPU _IO(KVMIO, 0x41)
#define KVM_CREATE_IRQCHIP _IO(KVMIO, 0x60)
#define KVM_CAP_VM_TYPES 235
#define KVM_X86_SW_PROTECTED_VM 1

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

static void ask(const char *type, int vm, char **numbers)
{
	printf("%s", type);
	for (; *numbers; numbers++)
		printf(" %s=%d", *numbers, ioctl(vm, KVM_CHECK_EXTENSION, atol(*numbers)));
}

int main(int argc, char **argv)
{
	(void)argc;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return fail("/dev/kvm");
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return fail("KVM_CREATE_VM");
	if (ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
		return fail("KVM_CREATE_VCPU");
	ask("default", vm, argv + 1);
#ifdef __x86_64__
	int pc = ioctl(kvm, KVM_CREATE_VM, 0);
	if (pc < 0)
		return fail("KVM_CREATE_VM of a second VM");
	if (ioctl(pc, KVM_CREATE_IRQCHIP, 0) < 0)
		return fail("KVM_CREATE_IRQCHIP");
	if (ioctl(pc, KVM_CREATE_VCPU, 0) < 0)
		return fail("KVM_CREATE_VCPU of the second VM");
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES) >> KVM_X86_SW_PROTECTED_VM & 1) {
		int protected = ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
		if (protected < 0)
			return fail("KVM_CREATE_VM of a software-protected VM");
		ask(" software-protected", protected, argv + 1);
		close(protected);
	}
#endif
	puts("");
	fflush(stdout);
	for (;;)
		pause();
}
