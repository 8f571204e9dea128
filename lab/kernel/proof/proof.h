// SPDX-License-Identifier: MIT OR Apache-2.0
// What the parts of the proof share: TAP, a small VM, userfaultfd. main.c says what is proven.
#ifndef PROOF_H
#define PROOF_H

#define _GNU_SOURCE
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What the build machine's headers may be too old for; all prefixed, so that newer ones do not clash.
#define X_CAP_USER_MEMORY2 231
#define X_CAP_MEMORY_FAULT_INFO 232
#define X_CAP_MEMORY_ATTRIBUTES 233
#define X_CAP_GUEST_MEMFD 234
#define X_CAP_VM_TYPES 235
#define X_CAP_PRE_FAULT_MEMORY 236
#define X_CAP_GUEST_MEMFD_FLAGS 244
#define X_CAP_EXIT_ON_MISSING 10236 // not mainline's: lab/kernel/README.md
#define X_MEM_LOG_DIRTY_PAGES (1u << 0)
#define X_MEM_READONLY (1u << 1)
#define X_MEM_GUEST_MEMFD (1u << 2)
#define X_MEM_EXIT_ON_MISSING (1u << 3)
#define X_EXIT_MEMORY_FAULT 39
#define X_FAULT_READ (1ull << 0)
#define X_FAULT_WRITE (1ull << 1)
#define X_FAULT_EXEC (1ull << 2)
#define X_FAULT_PRIVATE (1ull << 3)
#define X_ATTRIBUTE_PRIVATE (1ull << 3)
#define X_VM_DEFAULT 0
#define X_VM_SOFTWARE_PROTECTED 1
#define X_GUEST_MEMFD_MMAP (1ull << 0)
#define X_GUEST_MEMFD_INIT_SHARED (1ull << 1)
struct x_region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t pad2[14];
};
struct x_guest_memfd {
	uint64_t size, flags, reserved[6];
};
struct x_attributes {
	uint64_t address, size, attributes, flags;
};
struct x_pre_fault {
	uint64_t gpa, size, flags, padding[5];
};
struct x_memory_fault {
	uint64_t flags, gpa, size;
};
#define X_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct x_region2)
#define X_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, struct x_attributes)
#define X_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct x_guest_memfd)
#define X_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct x_pre_fault)
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef EHWPOISON
#define EHWPOISON 133
#endif

#define PAGE 4096ul
#define CODE_GPA 0x1000ul    // in slot 0, which is always there and never flagged
#define DATA_GPA 0x400000ul  // slot 1
#define DATA_PAGES 64ul
#define END_PORT 0x10        // a program ends by writing there
#define NAMED_PORT (END_PORT + 1) // in DX when a program starts

/* tap.c */

// One test point; `claim` says what holds, the rest what was seen.
#define check(holds, claim, ...) check_at(holds, claim, __VA_ARGS__)
void check_at(bool holds, const char *claim, const char *format, ...) __attribute__((format(printf, 3, 4)));
// A line that is no test point.
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Ends the program: something that all else needs did not work.
_Noreturn void bail_out(const char *what);
// Prints the plan; the exit code.
int finish(void);

/* vm.c */

struct vm {
	int fd, vcpu;
	struct kvm_run *run;
	uint8_t *low; // slot 0, 1 MiB at 0
	int error;    // errno of the last KVM_RUN, 0 if it succeeded
};

struct setup {
	uint32_t data_flags;
	uint8_t *data; // slot 1, DATA_PAGES pages; none if NULL
	bool irqchip;
	int type; // of VM
};

extern int kvm; // /dev/kvm

int capability(int fd, int number);
// Anonymous private memory without huge pages.
uint8_t *anonymous(size_t size);
struct vm vm_create(struct setup setup);
void vm_close(struct vm *vm);
// A memory slot, by the second ioctl or by the first; its result, with errno.
int set_region(struct vm *vm, bool second, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, void *memory);
struct kvm_regs registers(struct vm *vm);
void set_registers(struct vm *vm, const struct kvm_regs *values);
// The supported CPUID, with `count` entries of KVM's own leaves replaced by `extra`; all of KVM's stay if there are none.
void set_cpuid(struct vm *vm, const struct kvm_cpuid_entry2 *extra, unsigned count);

// Programs, in 32-bit flat protected mode without paging: a linear address is a guest-physical one.
struct program {
	const uint8_t *bytes;
	size_t size;
};
extern const struct program READ_EBX, WRITE_EBX, JUMP_EBX, OUTSB_ESI, PUSH_AT_EBX, SWEEP;

struct start {
	uint64_t ebx, eax, ecx; // ESI is EBX
	bool interrupts;
};
void load(struct vm *vm, struct program program, struct start start);
// KVM_RUN; what KVM does not write in the exit page is 0xa5.
void run(struct vm *vm);
// Loads and runs.
void execute(struct vm *vm, struct program program, struct start start);
// The program came to its end.
bool ended(const struct vm *vm);
const struct x_memory_fault *memory_fault(const struct vm *vm);
// KVM_RUN gave EFAULT with this very memory fault of one page.
bool faulted(const struct vm *vm, uint64_t gpa, uint64_t flags);
// The exit in words; four may be in use at a time.
const char *exit_text(const struct vm *vm);

/* memory.c */

// Whether a page is resident: 1, 0, or a negative errno.
int resident(void *page);
int userfaultfd_on(void *memory, size_t size, uint64_t mode);
// Whether an event came within `ms`.
bool userfaultfd_event(int fd, int ms, struct uffd_msg *event);
// Gives a page, filled with a 32-bit pattern.
int userfaultfd_copy(int fd, void *page, uint32_t pattern);
// A thread that serves one event.
struct server {
	int fd;
	uint32_t pattern;
	int served;
	unsigned long thread;
};
void server_start(struct server *server);
void server_join(struct server *server);

/* the parts */

void prove_capabilities(void);
void prove_missing(void);  // missing.c: what makes a page missing, and what makes it there
void prove_slots(void);    // slots.c: flags, live changes, other slots
void prove_guests(void);   // guests.c: whole guests on missing memory
void prove_private(void);  // private.c
void prove_hyperv(void);   // hyperv.c
void show_poison(void);    // poison.c: no proofs

#endif
