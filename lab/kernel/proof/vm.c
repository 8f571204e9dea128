// SPDX-License-Identifier: MIT OR Apache-2.0
// One VM with one vCPU in 32-bit flat protected mode: no paging, so that a linear address is a guest-physical one.
#include "proof.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOW_SIZE 0x100000ul

int kvm = -1;

// Each ends by `out %al, END_PORT`.
#define END 0xe6, END_PORT, 0xf4
#define PROGRAM(name, ...)                                   \
	static const uint8_t name##_bytes[] = { __VA_ARGS__ }; \
	const struct program name = { name##_bytes, sizeof(name##_bytes) }
PROGRAM(READ_EBX, 0x8b, 0x03, END);                // mov eax, [ebx]
PROGRAM(WRITE_EBX, 0x89, 0x03, END);               // mov [ebx], eax
PROGRAM(JUMP_EBX, 0xff, 0xe3);                     // jmp ebx
PROGRAM(OUTSB_ESI, 0x6e, END);                     // outsb
PROGRAM(PUSH_AT_EBX, 0x89, 0xdc, 0x50, END);       // mov esp, ebx; push eax
PROGRAM(SWEEP, 0x89, 0x03, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, // 1: mov [ebx], eax; add ebx, 4096
	0x49, 0x75, 0xf5, END);                              //    dec ecx; jnz 1b

int capability(int fd, int number)
{
	return ioctl(fd, KVM_CHECK_EXTENSION, number);
}

uint8_t *anonymous(size_t size)
{
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		bail_out("mmap");
	madvise(memory, size, MADV_NOHUGEPAGE);
	return memory;
}

static void enter_protected_mode(struct vm *vm)
{
	struct kvm_segment segment = {
		.limit = 0xffffffff, .selector = 8, .present = 1, .type = 11, .db = 1, .s = 1, .g = 1,
	};
	struct kvm_sregs sregs;

	if (ioctl(vm->vcpu, KVM_GET_SREGS, &sregs))
		bail_out("KVM_GET_SREGS");
	sregs.cs = segment;
	segment.type = 3;
	segment.selector = 16;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment;
	sregs.cr0 |= 1;
	if (ioctl(vm->vcpu, KVM_SET_SREGS, &sregs))
		bail_out("KVM_SET_SREGS");
}

static size_t run_size(void)
{
	return ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
}

struct vm vm_create(struct setup setup)
{
	struct vm vm = { .fd = ioctl(kvm, KVM_CREATE_VM, setup.type) };

	if (vm.fd < 0)
		bail_out("KVM_CREATE_VM");
	if (setup.irqchip && ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0))
		bail_out("KVM_CREATE_IRQCHIP");
	vm.low = anonymous(LOW_SIZE);
	memset(vm.low, 0, 0x10000);
	if (set_region(&vm, false, 0, 0, 0, LOW_SIZE, vm.low))
		bail_out("slot 0");
	if (setup.data && set_region(&vm, true, 1, setup.data_flags, DATA_GPA, DATA_PAGES * PAGE, setup.data))
		bail_out("slot 1");
	vm.vcpu = ioctl(vm.fd, KVM_CREATE_VCPU, 0);
	if (vm.vcpu < 0)
		bail_out("KVM_CREATE_VCPU");
	vm.run = mmap(NULL, run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu, 0);
	if (vm.run == MAP_FAILED)
		bail_out("mmap of the exit page");
	enter_protected_mode(&vm);
	return vm;
}

void vm_close(struct vm *vm)
{
	munmap(vm->run, run_size());
	close(vm->vcpu);
	close(vm->fd);
	munmap(vm->low, LOW_SIZE);
}

int set_region(struct vm *vm, bool second, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, void *memory)
{
	struct kvm_userspace_memory_region first = { slot, flags, gpa, size, (uintptr_t)memory };
	struct x_region2 region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)memory,
	};

	errno = 0;
	if (second)
		return ioctl(vm->fd, X_SET_USER_MEMORY_REGION2, &region);
	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &first);
}

struct kvm_regs registers(struct vm *vm)
{
	struct kvm_regs values;

	if (ioctl(vm->vcpu, KVM_GET_REGS, &values))
		bail_out("KVM_GET_REGS");
	return values;
}

void set_registers(struct vm *vm, const struct kvm_regs *values)
{
	if (ioctl(vm->vcpu, KVM_SET_REGS, values))
		bail_out("KVM_SET_REGS");
}

void set_cpuid(struct vm *vm, const struct kvm_cpuid_entry2 *extra, unsigned count)
{
	enum { MOST = 200 };
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[MOST];
	} cpuid = { .head = { .nent = MOST } };
	unsigned kept = 0;

	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid))
		bail_out("KVM_GET_SUPPORTED_CPUID");
	for (unsigned i = 0; i < cpuid.head.nent; i++)
		if (count == 0 || cpuid.entries[i].function >> 8 != 0x400000)
			cpuid.entries[kept++] = cpuid.entries[i];
	for (unsigned i = 0; i < count && kept < MOST; i++)
		cpuid.entries[kept++] = extra[i];
	cpuid.head.nent = kept;
	if (ioctl(vm->vcpu, KVM_SET_CPUID2, &cpuid))
		bail_out("KVM_SET_CPUID2");
}

void load(struct vm *vm, struct program program, struct start start)
{
	struct kvm_regs values = {
		.rip = CODE_GPA, .rflags = 2 | (start.interrupts ? 0x200 : 0), .rsp = 0x8000, .rdx = NAMED_PORT,
		.rax = start.eax, .rbx = start.ebx, .rcx = start.ecx, .rsi = start.ebx,
	};

	memcpy(vm->low + CODE_GPA, program.bytes, program.size);
	set_registers(vm, &values);
}

void run(struct vm *vm)
{
	memset(&vm->run->hw, 0xa5, 64);
	vm->run->exit_reason = 0xdead;
	vm->error = ioctl(vm->vcpu, KVM_RUN, 0) < 0 ? errno : 0;
}

void execute(struct vm *vm, struct program program, struct start start)
{
	load(vm, program, start);
	run(vm);
}

bool ended(const struct vm *vm)
{
	return !vm->error && vm->run->exit_reason == KVM_EXIT_IO && vm->run->io.port == END_PORT;
}

const struct x_memory_fault *memory_fault(const struct vm *vm)
{
	return (const void *)&vm->run->hw;
}

bool faulted(const struct vm *vm, uint64_t gpa, uint64_t flags)
{
	const struct x_memory_fault *fault = memory_fault(vm);

	return vm->error == EFAULT && vm->run->exit_reason == X_EXIT_MEMORY_FAULT && fault->gpa == gpa &&
	       fault->size == PAGE && fault->flags == flags;
}

const char *exit_text(const struct vm *vm)
{
	static char texts[4][200];
	static unsigned next;
	char *text = texts[next++ % 4];
	const struct x_memory_fault *fault = memory_fault(vm);
	uint32_t reason = vm->run->exit_reason;
	int length = snprintf(text, sizeof(texts[0]), "KVM_RUN: %s, exit_reason %u", vm->error ? strerror(vm->error) : "0", reason);

	if (reason == X_EXIT_MEMORY_FAULT)
		snprintf(text + length, sizeof(texts[0]) - length, ", gpa 0x%llx, size 0x%llx, flags 0x%llx", (long long)fault->gpa,
			 (long long)fault->size, (long long)fault->flags);
	else if (reason == KVM_EXIT_IO)
		snprintf(text + length, sizeof(texts[0]) - length, ", port 0x%x", vm->run->io.port);
	return text;
}
