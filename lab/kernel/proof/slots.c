// SPDX-License-Identifier: MIT OR Apache-2.0
// The flag on slots: which ioctl takes it with what, changes while the slot lives, and slots without it.
#include "proof.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (DATA_PAGES * PAGE)
#define AT(page) (DATA_GPA + (page) * PAGE)
#define EAX(vm) ((uint32_t)registers(vm).rax)
#define WORD(address) (*(volatile uint32_t *)(address))

static void live_changes(struct vm *vm, uint8_t *data)
{
	uint64_t dirty[DATA_PAGES / 64] = { 0 };
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = dirty };
	bool missed;
	int result;

	result = set_region(vm, true, 1, X_MEM_EXIT_ON_MISSING, DATA_GPA, SIZE, data);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(3) });
	check(!result && ended(vm) && EAX(vm) == 0x55aa, "live: set on a slot, pages that the guest has stay", "%d, %s", result, exit_text(vm));
	execute(vm, READ_EBX, (struct start){ .ebx = AT(12) });
	check(faulted(vm, AT(12), X_FAULT_READ), "live: and the others are missing", "%s", exit_text(vm));
	result = set_region(vm, false, 1, 0, DATA_GPA, SIZE, data);
	run(vm);
	check(!result && ended(vm) && EAX(vm) == 0, "live: cleared, they are no more", "%d, %s", result, exit_text(vm));
	result = set_region(vm, false, 1, X_MEM_EXIT_ON_MISSING | X_MEM_LOG_DIRTY_PAGES, DATA_GPA, SIZE, data);
	execute(vm, WRITE_EBX, (struct start){ .ebx = AT(13), .eax = 1 });
	missed = faulted(vm, AT(13), X_FAULT_WRITE);
	madvise(data + 13 * PAGE, PAGE, MADV_POPULATE_WRITE);
	run(vm);
	if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log))
		bail_out("KVM_GET_DIRTY_LOG");
	check(!result && missed && ended(vm) && dirty[0] == 1ull << 13, "live: with the dirty log on, the page is dirty once written", "bitmap 0x%llx",
	      (long long)dirty[0]);
}

static void without_the_flag(void)
{
	uint8_t *data = anonymous(SIZE);
	struct vm vm = vm_create((struct setup){ .data = data });
	struct server server = { .pattern = 0xd00d };
	int there = resident(data + 3 * PAGE);

	execute(&vm, WRITE_EBX, (struct start){ .ebx = AT(3), .eax = 0x55aa });
	check(there == 0 && ended(&vm) && WORD(data + 3 * PAGE) == 0x55aa, "unflagged: a missing page is faulted in as ever", "%s, memory 0x%x",
	      exit_text(&vm), WORD(data + 3 * PAGE));
	live_changes(&vm, data);
	vm_close(&vm);

	madvise(data, SIZE, MADV_DONTNEED);
	server.fd = userfaultfd_on(data, SIZE, UFFDIO_REGISTER_MODE_MISSING);
	vm = vm_create((struct setup){ .data = data });
	server_start(&server);
	execute(&vm, READ_EBX, (struct start){ .ebx = AT(7) });
	server_join(&server);
	check(ended(&vm) && EAX(&vm) == 0xd00d && server.served == 1, "unflagged: userfaultfd serves it as ever", "%s, eax 0x%x, %d events",
	      exit_text(&vm), EAX(&vm), server.served);
	vm_close(&vm);
	close(server.fd);
	munmap(data, SIZE);
}

static void which_flags(bool second)
{
	static const char *const claims[2][3] = {
		{ "flags: KVM_SET_USER_MEMORY_REGION takes it", "flags: ... not with READONLY", "flags: ... and no other bit" },
		{ "flags: KVM_SET_USER_MEMORY_REGION2 takes it", "flags: ... not with READONLY", "flags: ... and no other bit" },
	};
	uint8_t *data = anonymous(PAGE);
	struct vm vm = vm_create((struct setup){ 0 });
	int result = set_region(&vm, second, 1, X_MEM_EXIT_ON_MISSING, DATA_GPA, PAGE, data);

	check(result == 0, claims[second][0], "%d", result);
	set_region(&vm, false, 1, 0, 0, 0, NULL);
	result = set_region(&vm, second, 1, X_MEM_EXIT_ON_MISSING | X_MEM_READONLY, DATA_GPA, PAGE, data);
	check(result == -1 && errno == EINVAL, claims[second][1], "%d, %s", result, strerror(errno));
	result = set_region(&vm, second, 1, 1u << 4, DATA_GPA, PAGE, data);
	check(result == -1 && errno == EINVAL, claims[second][2], "%d, %s", result, strerror(errno));
	vm_close(&vm);
	munmap(data, PAGE);
}

void prove_slots(void)
{
	struct kvm_enable_cap enable = { .cap = X_CAP_EXIT_ON_MISSING };
	struct vm vm;
	int result;

	without_the_flag();
	which_flags(false);
	which_flags(true);
	vm = vm_create((struct setup){ 0 });
	result = ioctl(vm.fd, KVM_ENABLE_CAP, &enable);
	check(result == -1 && errno == EINVAL, "flags: the capability is not for KVM_ENABLE_CAP", "%d, %s", result, strerror(errno));
	vm_close(&vm);
}
