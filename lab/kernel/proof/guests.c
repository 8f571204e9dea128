// SPDX-License-Identifier: MIT OR Apache-2.0
// Whole guests on missing memory: one whose tables, code, data and stack are all missing, and sweeps over many pages.
#include "proof.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SIZE (DATA_PAGES * PAGE)
#define AT(page) (DATA_GPA + (page) * PAGE)

// Where the 64-bit guest has its parts, in pages.
enum { PML4, PDPT, PD, PT, CODE = 10, VALUE, STACK };
#define PRESENT_WRITABLE_USER 7ull
static const uint64_t VALUE_IS = 0x1122334455667788;

static void write_image(uint8_t *image)
{
	static const uint8_t code[] = { 0x48, 0x8b, 0x03, 0x50, 0xe6, END_PORT, 0xf4 }; // mov rax, [rbx]; push rax; out
	uint64_t *tables = (uint64_t *)image;
	const unsigned each = PAGE / sizeof(uint64_t);

	tables[PML4 * each] = AT(PDPT) | PRESENT_WRITABLE_USER;
	tables[PDPT * each] = AT(PD) | PRESENT_WRITABLE_USER;
	tables[PD * each + (DATA_GPA >> 21)] = AT(PT) | PRESENT_WRITABLE_USER;
	for (unsigned page = 0; page < DATA_PAGES; page++)
		tables[PT * each + page] = AT(page) | PRESENT_WRITABLE_USER;
	memcpy(image + CODE * PAGE, code, sizeof(code));
	memcpy(image + VALUE * PAGE, &VALUE_IS, sizeof(VALUE_IS));
}

static void enter_long_mode(struct vm *vm)
{
	struct kvm_sregs sregs;
	struct kvm_regs values;

	set_cpuid(vm, NULL, 0);
	if (ioctl(vm->vcpu, KVM_GET_SREGS, &sregs))
		bail_out("KVM_GET_SREGS");
	sregs.cr3 = AT(PML4);
	sregs.cr4 = 0x20;        // PAE
	sregs.cr0 = 0x80050033;  // PG, AM, WP, NE, ET, MP, PE
	sregs.efer = 0x500;      // LMA, LME
	sregs.cs.l = 1;
	sregs.cs.db = 0;
	if (ioctl(vm->vcpu, KVM_SET_SREGS, &sregs))
		bail_out("KVM_SET_SREGS");
	values = registers(vm);
	values.rip = AT(CODE);
	values.rbx = AT(VALUE);
	values.rsp = AT(STACK + 1);
	values.rflags = 2;
	set_registers(vm, &values);
}

static void long_mode(void)
{
	static uint8_t image[SIZE] __attribute__((aligned(4096)));
	static const char wanted[] = " 0w 1w 2w 3w 10x 11r 12w"; // tables are written: accessed bits
	uint8_t *data = anonymous(SIZE);
	int fd = userfaultfd_on(data, SIZE, UFFDIO_REGISTER_MODE_MISSING);
	struct vm vm = vm_create((struct setup){ .data_flags = X_MEM_EXIT_ON_MISSING, .data = data });
	char seen[400] = "";
	uint64_t pushed;

	write_image(image);
	enter_long_mode(&vm);
	for (size_t used = 0; used + 20 < sizeof(seen);) {
		uint64_t offset, flags;
		struct uffdio_copy copy;

		run(&vm);
		if (vm.error != EFAULT || vm.run->exit_reason != X_EXIT_MEMORY_FAULT)
			break;
		offset = memory_fault(&vm)->gpa - DATA_GPA;
		flags = memory_fault(&vm)->flags;
		used += snprintf(seen + used, sizeof(seen) - used, " %u%c", (unsigned)(offset / PAGE),
				 flags == X_FAULT_READ ? 'r' : flags == X_FAULT_WRITE ? 'w' : flags == X_FAULT_EXEC ? 'x' : '?');
		copy = (struct uffdio_copy){ .dst = (uintptr_t)data + offset, .src = (uintptr_t)image + offset, .len = PAGE };
		if (offset >= SIZE || ioctl(fd, UFFDIO_COPY, &copy))
			bail_out("UFFDIO_COPY");
	}
	memcpy(&pushed, data + (STACK + 1) * PAGE - 8, sizeof(pushed));
	check(ended(&vm) && registers(&vm).rax == VALUE_IS && pushed == VALUE_IS, "guest: a 64-bit guest of which all is missing runs", "%s, rax 0x%llx",
	      exit_text(&vm), registers(&vm).rax);
	check(!strcmp(seen, wanted) && !userfaultfd_event(fd, 50, NULL), "guest: each page exits once, by the access that met it", "pages%s", seen);
	vm_close(&vm);
	close(fd);
	munmap(data, SIZE);
}

// Runs a guest that writes to each of `pages` pages, installing what is missing; the number of exits.
static unsigned sweep(struct vm *vm, uint8_t *data, unsigned pages)
{
	unsigned exits = 0;

	if (set_region(vm, true, 1, X_MEM_EXIT_ON_MISSING, DATA_GPA, pages * PAGE, data))
		bail_out("slot 1");
	load(vm, SWEEP, (struct start){ .ebx = DATA_GPA, .eax = 0x99, .ecx = pages });
	for (;;) {
		run(vm);
		if (vm->error != EFAULT || vm->run->exit_reason != X_EXIT_MEMORY_FAULT || memory_fault(vm)->size != PAGE)
			return exits;
		if (madvise(data + (memory_fault(vm)->gpa - DATA_GPA), PAGE, MADV_POPULATE_WRITE))
			bail_out("MADV_POPULATE_WRITE");
		exits++;
	}
}

static void sweeps(void)
{
	enum { PAGES = 4096, HUGE = 512 };
	struct vm vm = vm_create((struct setup){ 0 });
	uint8_t *data = anonymous(PAGES * PAGE), *mapping;
	struct timespec began, now;
	unsigned exits;

	clock_gettime(CLOCK_MONOTONIC, &began);
	exits = sweep(&vm, data, PAGES);
	clock_gettime(CLOCK_MONOTONIC, &now);
	check(ended(&vm) && exits == PAGES && data[(PAGES - 1) * PAGE] == 0x99, "guest: a sweep exits once a page", "%u exits in %.1f s", exits,
	      (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) * 1e-9);
	vm_close(&vm);
	munmap(data, PAGES * PAGE);

	mapping = mmap(NULL, (PAGES + HUGE) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapping == MAP_FAILED)
		bail_out("mmap");
	data = (uint8_t *)(((uintptr_t)mapping + HUGE * PAGE - 1) & ~(HUGE * PAGE - 1));
	madvise(data, PAGES * PAGE, MADV_HUGEPAGE);
	vm = vm_create((struct setup){ 0 });
	exits = sweep(&vm, data, PAGES);
	check(ended(&vm) && exits == PAGES / HUGE && data[(PAGES - 1) * PAGE] == 0x99, "guest: with huge pages once each, the size still 4 KiB", "%u exits",
	      exits);
	vm_close(&vm);
	munmap(mapping, (PAGES + HUGE) * PAGE);
}

void prove_guests(void)
{
	long_mode();
	sweeps();
}
