// SPDX-License-Identifier: MIT OR Apache-2.0
// A slot with KVM_MEM_EXIT_ON_MISSING: which pages are missing, what the exit says, what makes a page be there.
#include "proof.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (DATA_PAGES * PAGE)
#define AT(page) (DATA_GPA + (page) * PAGE)
#define EAX(vm) ((uint32_t)registers(vm).rax)
#define WORD(address) (*(volatile uint32_t *)(address))

static void userfaultfd_missing(void)
{
	uint8_t *data = anonymous(SIZE);
	int fd = userfaultfd_on(data, SIZE, UFFDIO_REGISTER_MODE_MISSING);
	struct vm vm = vm_create((struct setup){ .data_flags = X_MEM_EXIT_ON_MISSING, .data = data });
	int result;

	execute(&vm, READ_EBX, (struct start){ .ebx = AT(3) + 0x124 });
	check(faulted(&vm, AT(3), X_FAULT_READ), "missing: a read exits with the page and READ", "%s", exit_text(&vm));
	check(registers(&vm).rip == CODE_GPA, "missing: the access has not retired", "rip 0x%llx", registers(&vm).rip);
	check(!userfaultfd_event(fd, 50, NULL), "missing: userfaultfd hears nothing of it", "no event in 50 ms");
	check(resident(data + 3 * PAGE) == 0, "missing: the page is still not there", "resident %d", resident(data + 3 * PAGE));
	run(&vm);
	check(faulted(&vm, AT(3), X_FAULT_READ), "missing: the same exit again while it is not", "%s", exit_text(&vm));
	result = userfaultfd_copy(fd, data + 3 * PAGE, 0xcafe0003);
	run(&vm);
	check(!result && ended(&vm) && EAX(&vm) == 0xcafe0003, "missing: UFFDIO_COPY makes it be there", "%s, eax 0x%x", exit_text(&vm), EAX(&vm));
	execute(&vm, READ_EBX, (struct start){ .ebx = AT(4) });
	check(faulted(&vm, AT(4), X_FAULT_READ), "missing: its neighbour is not", "%s", exit_text(&vm));
	vm_close(&vm);
	close(fd);
	munmap(data, SIZE);
}

static void kinds_of_access(struct vm *vm, uint8_t *data)
{
	static const uint8_t end[] = { 0xe6, END_PORT, 0xf4 };

	execute(vm, WRITE_EBX, (struct start){ .ebx = AT(5) + 8, .eax = 0x12345678 });
	check(faulted(vm, AT(5), X_FAULT_WRITE), "access: a write exits with WRITE", "%s", exit_text(vm));
	check(resident(data + 5 * PAGE) == 0, "access: the page is still not there", "resident %d", resident(data + 5 * PAGE));
	if (madvise(data + 5 * PAGE, PAGE, MADV_POPULATE_WRITE))
		bail_out("MADV_POPULATE_WRITE");
	run(vm);
	check(ended(vm) && WORD(data + 5 * PAGE + 8) == 0x12345678, "access: MADV_POPULATE_WRITE makes it be there", "%s, memory 0x%x",
	      exit_text(vm), WORD(data + 5 * PAGE + 8));
	execute(vm, PUSH_AT_EBX, (struct start){ .ebx = AT(8), .eax = 0x77 });
	check(faulted(vm, AT(7), X_FAULT_WRITE), "access: a push onto a missing stack exits with WRITE", "%s", exit_text(vm));
	madvise(data + 7 * PAGE, PAGE, MADV_POPULATE_WRITE);
	run(vm);
	check(ended(vm) && WORD(data + 8 * PAGE - 4) == 0x77, "access: the push is then done, once", "%s", exit_text(vm));
	execute(vm, JUMP_EBX, (struct start){ .ebx = AT(9) });
	// READ where the processor does not tell fetches apart
	check(faulted(vm, AT(9), X_FAULT_EXEC) || faulted(vm, AT(9), X_FAULT_READ), "access: a jump exits with EXEC", "%s", exit_text(vm));
	memcpy(data + 9 * PAGE, end, sizeof(end));
	run(vm);
	check(ended(vm), "access: code that the host writes there then runs", "%s", exit_text(vm));
}

static void present_but_not_writable(struct vm *vm, uint8_t *data)
{
	int result = madvise(data + 10 * PAGE, PAGE, MADV_POPULATE_READ);
	int there = resident(data + 10 * PAGE);

	execute(vm, READ_EBX, (struct start){ .ebx = AT(10), .eax = 1 });
	check(!result && there == 1 && faulted(vm, AT(10), X_FAULT_READ), "present: MADV_POPULATE_READ is not enough, even for a read", "%s",
	      exit_text(vm));
	madvise(data + 10 * PAGE, PAGE, MADV_POPULATE_WRITE);
	run(vm);
	check(ended(vm) && EAX(vm) == 0, "present: MADV_POPULATE_WRITE then is", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	WORD(data + 20 * PAGE) = 0xfeed0020;
	execute(vm, READ_EBX, (struct start){ .ebx = AT(20) });
	check(ended(vm) && EAX(vm) == 0xfeed0020, "present: what the host has written does not exit", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	madvise(data + 20 * PAGE, PAGE, MADV_DONTNEED);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(20) });
	check(faulted(vm, AT(20), X_FAULT_READ), "present: after MADV_DONTNEED the page is missing again", "%s", exit_text(vm));
}

// fork() write-protects private pages: they are there, and yet not to be had without a fault.
static void forked(struct vm *vm, uint8_t *data)
{
	int pipe_ends[2];
	bool had;
	pid_t child;

	WORD(data + 25 * PAGE) = 0xfeed0025;
	execute(vm, READ_EBX, (struct start){ .ebx = AT(25) });
	had = ended(vm);
	if (pipe(pipe_ends))
		bail_out("pipe");
	child = fork();
	if (child == 0) { // lives until the parent closes its end
		char byte;

		close(pipe_ends[1]);
		_exit(read(pipe_ends[0], &byte, 1) < 0);
	}
	execute(vm, READ_EBX, (struct start){ .ebx = AT(25) });
	check(had && faulted(vm, AT(25), X_FAULT_READ), "fork: private pages that the guest had are missing", "%s", exit_text(vm));
	madvise(data + 25 * PAGE, PAGE, MADV_POPULATE_WRITE);
	run(vm);
	check(ended(vm) && EAX(vm) == 0xfeed0025, "fork: MADV_POPULATE_WRITE brings them back, content kept", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	waitpid(child, NULL, 0);

	madvise(data + 26 * PAGE, PAGE, MADV_DONTFORK);
	WORD(data + 26 * PAGE) = 0xfeed0026;
	child = fork();
	if (child == 0)
		_exit(0);
	execute(vm, READ_EBX, (struct start){ .ebx = AT(26) });
	check(ended(vm) && EAX(vm) == 0xfeed0026, "fork: not so with MADV_DONTFORK", "%s, eax 0x%x", exit_text(vm), EAX(vm));
	waitpid(child, NULL, 0);
}

static void accesses_by_kvm(struct vm *vm, uint8_t *data)
{
	struct x_pre_fault range = { .gpa = AT(40), .size = PAGE };
	int result;

	// String I/O is emulated: KVM reads the byte itself.
	execute(vm, OUTSB_ESI, (struct start){ .ebx = AT(30) });
	check(!vm->error && vm->run->exit_reason == KVM_EXIT_IO && vm->run->io.port == NAMED_PORT && resident(data + 30 * PAGE) == 1,
	      "kvm: what KVM reads for an instruction it emulates does not exit", "%s, resident %d", exit_text(vm), resident(data + 30 * PAGE));
	result = ioctl(vm->vcpu, X_PRE_FAULT_MEMORY, &range);
	check(result == -1 && errno == EFAULT && resident(data + 40 * PAGE) == 0, "kvm: KVM_PRE_FAULT_MEMORY refuses a missing page",
	      "%d, %s, resident %d", result, strerror(errno), resident(data + 40 * PAGE));
	madvise(data + 40 * PAGE, PAGE, MADV_POPULATE_WRITE);
	range = (struct x_pre_fault){ .gpa = AT(40), .size = PAGE };
	result = ioctl(vm->vcpu, X_PRE_FAULT_MEMORY, &range);
	check(result == 0 && range.size == 0, "kvm: KVM_PRE_FAULT_MEMORY takes it once it is there", "%d, %lld bytes left", result,
	      (long long)range.size);
}

static void userfaultfd_minor(void)
{
	int file = memfd_create("proof", 0);
	uint8_t *data, *alias;
	struct uffdio_continue install;
	struct vm vm;
	int fd, result;

	if (file < 0 || ftruncate(file, SIZE))
		bail_out("memfd");
	data = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	alias = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (data == MAP_FAILED || alias == MAP_FAILED)
		bail_out("mmap of the memfd");
	fd = userfaultfd_on(data, SIZE, UFFDIO_REGISTER_MODE_MINOR);
	WORD(alias + 2 * PAGE) = 0xbeef0002;
	vm = vm_create((struct setup){ .data_flags = X_MEM_EXIT_ON_MISSING, .data = data });
	execute(&vm, READ_EBX, (struct start){ .ebx = AT(2) });
	check(faulted(&vm, AT(2), X_FAULT_READ), "minor: a page in the page cache that is not mapped is missing", "%s", exit_text(&vm));
	check(!userfaultfd_event(fd, 50, NULL), "minor: userfaultfd hears nothing of it", "no event in 50 ms");
	install = (struct uffdio_continue){ .range = { (uintptr_t)(data + 2 * PAGE), PAGE } };
	result = ioctl(fd, UFFDIO_CONTINUE, &install);
	run(&vm);
	check(!result && ended(&vm) && EAX(&vm) == 0xbeef0002, "minor: UFFDIO_CONTINUE makes it be there", "%s, eax 0x%x", exit_text(&vm), EAX(&vm));
	vm_close(&vm);
	close(fd);
	munmap(data, SIZE);
	munmap(alias, SIZE);
	close(file);
}

static void zero_page(void)
{
	uint8_t *data = anonymous(SIZE);
	int fd = userfaultfd_on(data, SIZE, UFFDIO_REGISTER_MODE_MISSING);
	struct vm vm = vm_create((struct setup){ .data_flags = X_MEM_EXIT_ON_MISSING, .data = data });
	struct uffdio_zeropage zero = { .range = { (uintptr_t)(data + PAGE), PAGE } };
	int result = ioctl(fd, UFFDIO_ZEROPAGE, &zero);

	execute(&vm, READ_EBX, (struct start){ .ebx = AT(1), .eax = 1 });
	check(!result && faulted(&vm, AT(1), X_FAULT_READ), "zero: UFFDIO_ZEROPAGE is not enough: not writable", "%s", exit_text(&vm));
	madvise(data + PAGE, PAGE, MADV_POPULATE_WRITE);
	run(&vm);
	check(ended(&vm) && EAX(&vm) == 0, "zero: MADV_POPULATE_WRITE on top of it is", "%s, eax 0x%x", exit_text(&vm), EAX(&vm));
	vm_close(&vm);
	close(fd);
	munmap(data, SIZE);
}

// With an interrupt controller and interrupts on KVM would make a fault an asynchronous one.
static void async_page_fault(void)
{
	uint8_t *data = anonymous(SIZE);
	int fd = userfaultfd_on(data, SIZE, UFFDIO_REGISTER_MODE_MISSING);
	struct vm vm = vm_create((struct setup){ .data_flags = X_MEM_EXIT_ON_MISSING, .data = data, .irqchip = true });
	struct server server = { .fd = fd, .pattern = 0xcd };

	execute(&vm, READ_EBX, (struct start){ .ebx = AT(6), .interrupts = true });
	check(faulted(&vm, AT(6), X_FAULT_READ) && !userfaultfd_event(fd, 50, NULL), "async: a missing page exits here too, without an event", "%s",
	      exit_text(&vm));
	userfaultfd_copy(fd, data + 6 * PAGE, 0xab);
	run(&vm);
	check(ended(&vm) && EAX(&vm) == 0xab, "async: UFFDIO_COPY makes it be there", "%s, eax 0x%x", exit_text(&vm), EAX(&vm));
	vm_close(&vm);

	vm = vm_create((struct setup){ .data = data, .irqchip = true });
	server_start(&server);
	execute(&vm, READ_EBX, (struct start){ .ebx = AT(7), .interrupts = true });
	server_join(&server);
	check(ended(&vm) && EAX(&vm) == 0xcd && server.served == 1, "async: without the flag it is an event and no exit", "%s, eax 0x%x, %d events",
	      exit_text(&vm), EAX(&vm), server.served);
	vm_close(&vm);
	close(fd);
	munmap(data, SIZE);
}

void prove_missing(void)
{
	uint8_t *data = anonymous(SIZE);
	struct vm vm = vm_create((struct setup){ .data_flags = X_MEM_EXIT_ON_MISSING, .data = data });

	kinds_of_access(&vm, data);
	present_but_not_writable(&vm, data);
	forked(&vm, data);
	accesses_by_kvm(&vm, data);
	vm_close(&vm);
	munmap(data, SIZE);
	userfaultfd_missing();
	userfaultfd_minor();
	zero_page();
	async_page_fault();
}
