// SPDX-License-Identifier: MIT OR Apache-2.0
// What this kernel does with holes and poisoned pages: shown, not held to anything.
#include "proof.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (DATA_PAGES * PAGE)
#define AT(page) (DATA_GPA + (page) * PAGE)
enum { HOLE = 5, POISONED = 9 };

static volatile sig_atomic_t signals;

static void on_sigbus(int signal)
{
	(void)signal;
	signals = signals + 1;
}

// EBUSY: the page was poisoned, though not all that the kernel wants to do for it could be done.
static bool poison(uint8_t *page)
{
	if (!madvise(page, PAGE, MADV_HWPOISON) || errno == EBUSY)
		return true;
	note("MADV_HWPOISON: %s", strerror(errno));
	return false;
}

static void show_slot(const char *name, uint32_t flags)
{
	uint8_t *data = anonymous(SIZE);
	struct vm vm = vm_create((struct setup){ .data_flags = flags, .data = data });

	munmap(data + HOLE * PAGE, PAGE);
	execute(&vm, READ_EBX, (struct start){ .ebx = AT(HOLE) });
	note("%s slot, a hole in its mapping: %s", name, exit_text(&vm));
	data[POISONED * PAGE] = 1;
	if (poison(data + POISONED * PAGE)) {
		signals = 0;
		execute(&vm, READ_EBX, (struct start){ .ebx = AT(POISONED) });
		note("%s slot, a poisoned page: %s, %d SIGBUS", name, exit_text(&vm), (int)signals);
	}
	vm_close(&vm);
	munmap(data, HOLE * PAGE);
	munmap(data + (HOLE + 1) * PAGE, SIZE - (HOLE + 1) * PAGE);
}

static void show_guest_memfd(void)
{
	struct vm vm = vm_create((struct setup){ 0 });
	struct x_guest_memfd request = { .size = SIZE, .flags = X_GUEST_MEMFD_MMAP | X_GUEST_MEMFD_INIT_SHARED };
	struct x_region2 region = { .slot = 1, .flags = X_MEM_GUEST_MEMFD, .guest_phys_addr = DATA_GPA, .memory_size = SIZE };
	int fd = ioctl(vm.fd, X_CREATE_GUEST_MEMFD, &request);
	uint8_t *data;

	if (fd < 0)
		bail_out("KVM_CREATE_GUEST_MEMFD");
	data = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	region.guest_memfd = fd;
	region.userspace_addr = (uintptr_t)data;
	if (data == MAP_FAILED || ioctl(vm.fd, X_SET_USER_MEMORY_REGION2, &region))
		bail_out("a slot on a mapped guest_memfd");
	data[POISONED * PAGE] = 7;
	if (poison(data + POISONED * PAGE)) {
		signals = 0;
		execute(&vm, READ_EBX, (struct start){ .ebx = AT(POISONED) });
		note("mapped guest_memfd, a poisoned page: %s, %d SIGBUS", exit_text(&vm), (int)signals);
	}
	close(fd);
	vm_close(&vm);
	munmap(data, SIZE);
}

void show_poison(void)
{
	struct sigaction action = { .sa_handler = on_sigbus };

	sigaction(SIGBUS, &action, NULL);
	show_slot("ordinary", 0);
	show_slot("flagged", X_MEM_EXIT_ON_MISSING);
	show_guest_memfd();
}
