// SPDX-License-Identifier: MIT OR Apache-2.0
// Private memory on a software-protected VM, where the attribute of a page says which memory the guest sees.
#include "proof.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (DATA_PAGES * PAGE)
#define AT(page) (DATA_GPA + (page) * PAGE)
#define EAX(vm) ((uint32_t)registers(vm).rax)
#define WORD(address) (*(volatile uint32_t *)(address))
// A second slot, which has no private half.
#define SHARED_ONLY_GPA 0x800000ul

static int guest_memfd(struct vm *vm, uint64_t flags)
{
	struct x_guest_memfd request = { .size = SIZE, .flags = flags };

	return ioctl(vm->fd, X_CREATE_GUEST_MEMFD, &request);
}

static int set_private_slot(struct vm *vm, uint32_t flags, void *memory, int fd)
{
	struct x_region2 region = {
		.slot = 1, .flags = X_MEM_GUEST_MEMFD | flags, .guest_phys_addr = DATA_GPA, .memory_size = SIZE,
		.userspace_addr = (uintptr_t)memory, .guest_memfd = fd,
	};

	return ioctl(vm->fd, X_SET_USER_MEMORY_REGION2, &region);
}

static int make(struct vm *vm, uint64_t gpa, bool private)
{
	struct x_attributes request = { .address = gpa, .size = PAGE, .attributes = private ? X_ATTRIBUTE_PRIVATE : 0 };

	return ioctl(vm->fd, X_SET_MEMORY_ATTRIBUTES, &request);
}

static void two_halves(struct vm *vm, uint8_t *shared, int fd)
{
	int result;

	WORD(shared + 5 * PAGE) = 0x5ea4ed05;
	execute(vm, READ_EBX, (struct start){ .ebx = AT(5) });
	check(ended(vm) && EAX(vm) == 0x5ea4ed05, "private: a page begins shared", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	result = make(vm, AT(5), true);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(5), .eax = 1 });
	check(!result && ended(vm) && EAX(vm) == 0, "private: made private, it is another memory, of zeros", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	execute(vm, WRITE_EBX, (struct start){ .ebx = AT(5), .eax = 0x5ec4e705 });
	check(ended(vm) && WORD(shared + 5 * PAGE) == 0x5ea4ed05, "private: what the guest writes there the host does not see", "%s, memory 0x%x",
	      exit_text(vm), WORD(shared + 5 * PAGE));
	result = make(vm, AT(5), false);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(5) });
	check(!result && ended(vm) && EAX(vm) == 0x5ea4ed05, "private: made shared, the shared half is back", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	result = make(vm, AT(5), true);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(5) });
	check(!result && ended(vm) && EAX(vm) == 0x5ec4e705, "private: and the private half has been kept", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * PAGE, PAGE);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(5), .eax = 1 });
	check(!result && ended(vm) && EAX(vm) == 0, "private: until a hole is punched into the guest_memfd", "%s, eax 0x%x", exit_text(vm), EAX(vm));
}

static void faults(struct vm *vm, uint8_t *shared)
{
	uint8_t *plain = anonymous(PAGE);
	struct x_pre_fault range = { .gpa = AT(6), .size = PAGE };
	int result;

	if (set_region(vm, true, 2, 0, SHARED_ONLY_GPA, PAGE, plain))
		bail_out("slot 2");
	result = make(vm, SHARED_ONLY_GPA, true);
	execute(vm, READ_EBX, (struct start){ .ebx = SHARED_ONLY_GPA });
	check(!result && faulted(vm, SHARED_ONLY_GPA, X_FAULT_PRIVATE), "private: a private page of a slot without such memory exits with PRIVATE", "%s",
	      exit_text(vm));
	make(vm, SHARED_ONLY_GPA, false);
	run(vm);
	check(ended(vm), "private: made shared, the access is done", "%s", exit_text(vm));
	result = make(vm, AT(6), true);
	if (!result)
		result = ioctl(vm->vcpu, X_PRE_FAULT_MEMORY, &range);
	check(result == 0 && range.size == 0 && resident(shared + 6 * PAGE) == 0, "private: KVM_PRE_FAULT_MEMORY fills the private half", "%d, %lld bytes left",
	      result, (long long)range.size);
	set_region(vm, true, 2, 0, 0, 0, NULL);
	munmap(plain, PAGE);
}

// Both at once: the flag is about the shared half.
static void missing_too(struct vm *vm, uint8_t *shared, int fd)
{
	int result = set_private_slot(vm, X_MEM_EXIT_ON_MISSING, shared, fd);

	check(result == 0, "private: a slot can have EXIT_ON_MISSING too", "%d, %s", result, result ? strerror(errno) : "0");
	execute(vm, READ_EBX, (struct start){ .ebx = AT(30) });
	check(faulted(vm, AT(30), X_FAULT_READ), "private: a shared page that is missing exits then", "%s", exit_text(vm));
	madvise(shared + 30 * PAGE, PAGE, MADV_POPULATE_WRITE);
	run(vm);
	check(ended(vm), "private: and not once it is there", "%s", exit_text(vm));
	make(vm, AT(31), true);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(31), .eax = 1 });
	check(ended(vm) && EAX(vm) == 0, "private: a private page is never missing", "%s, eax 0x%x", exit_text(vm), EAX(vm));
}

static void what_is_refused(struct vm *vm, uint8_t *shared)
{
	struct vm plain = vm_create((struct setup){ 0 });
	int result = guest_memfd(vm, X_GUEST_MEMFD_MMAP | X_GUEST_MEMFD_INIT_SHARED);
	struct x_attributes request = { .address = DATA_GPA, .size = PAGE, .attributes = X_ATTRIBUTE_PRIVATE };

	check(result == -1 && errno == EINVAL, "private: INIT_SHARED is refused where memory can be private", "%d, %s", result, strerror(errno));
	result = set_region(vm, false, 3, X_MEM_GUEST_MEMFD, 0xc00000, PAGE, shared);
	check(result == -1 && errno == EINVAL, "private: the first ioctl for slots knows no guest_memfd", "%d, %s", result, strerror(errno));
	result = capability(plain.fd, X_CAP_MEMORY_ATTRIBUTES);
	check(result == 0, "private: an ordinary VM has no memory attributes", "capability: %d", result);
	result = ioctl(plain.fd, X_SET_MEMORY_ATTRIBUTES, &request);
	check(result == -1, "private: and refuses to set them", "%d, %s", result, strerror(errno));
	vm_close(&plain);
}

void prove_private(void)
{
	struct vm vm = vm_create((struct setup){ .type = X_VM_SOFTWARE_PROTECTED });
	uint8_t *shared = anonymous(SIZE);
	int fd = guest_memfd(&vm, 0), result;

	if (fd < 0)
		bail_out("KVM_CREATE_GUEST_MEMFD");
	result = capability(vm.fd, X_CAP_MEMORY_ATTRIBUTES);
	check(result == X_ATTRIBUTE_PRIVATE, "private: a software-protected VM has the attribute PRIVATE", "capability: %d", result);
	if (set_private_slot(&vm, 0, shared, fd))
		bail_out("a private slot");
	two_halves(&vm, shared, fd);
	faults(&vm, shared);
	what_is_refused(&vm, shared);
	set_region(&vm, true, 1, 0, 0, 0, NULL); // a slot with guest_memfd changes no flags while it lives
	missing_too(&vm, shared, fd);
	close(fd);
	vm_close(&vm);
	munmap(shared, SIZE);
}
