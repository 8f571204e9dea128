// The reference of the slot benchmarks: the least that a C program does to change a slot of a VM that has others. Memory
// is made, kept from children and unmapped as Typevisor does it, and KVM is given the ioctl that Typevisor gives it.
//
// slots OPERATION OTHERS AT STEP SIZE HERE THERE    numbers; bench/lib/layout.mjs says what lies where
//
// One operation is: map, a slot made and removed with its memory; move, from HERE to THERE or back; flags, dirty logging
// turned on or off.
#include "child.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAGE = 4096, CAP_USER_MEMORY2 = 231, PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

// KVM_SET_USER_MEMORY_REGION2 (Linux 6.8): headers of older distributions lack it.
struct region2 {
  uint32_t slot, flags;
  uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
  uint32_t guest_memfd, padding;
  uint64_t more_padding[14];
};
#define SET_REGION2 _IOW(KVMIO, 0x49, struct region2)
_Static_assert(SET_REGION2 == 0x40a0ae49, "as the kernel numbers it");

struct machine {
  int vm;
  bool region2;
  uint32_t slot; // the one that changes
  uint64_t size, here, there;
  void *memory;
  bool changed; // it lies THERE, it logs
};

static void set(const struct machine *m, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, void *memory) {
  const uint64_t address = (uintptr_t)memory;
  if (m->region2) {
    struct region2 region = {
        .slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = address};
    must(ioctl(m->vm, SET_REGION2, &region), "KVM_SET_USER_MEMORY_REGION2");
  } else {
    struct kvm_userspace_memory_region region = {
        .slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = address};
    must(ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
  }
}

static void *guest_memory(size_t size) {
  void *at = map(size, PRIVATE, -1);
  must(madvise(at, size, MADV_DONTFORK), "madvise");
  return at;
}

static void map_and_unmap(struct machine *m) {
  void *memory = guest_memory(m->size);
  set(m, m->slot, 0, m->here, m->size, memory);
  set(m, m->slot, 0, 0, 0, NULL);
  must(munmap(memory, m->size), "munmap");
}

static void move(struct machine *m) {
  m->changed = !m->changed;
  set(m, m->slot, 0, m->changed ? m->there : m->here, m->size, m->memory);
}

static void toggle(struct machine *m) {
  m->changed = !m->changed;
  set(m, m->slot, m->changed ? KVM_MEM_LOG_DIRTY_PAGES : 0, m->here, m->size, m->memory);
}

static void (*operation)(struct machine *);

static double batch(void *state, uint32_t count) {
  const double start = now_ns();
  for (uint32_t n = 0; n < count; n++) operation(state);
  return now_ns() - start;
}

static struct machine create(uint64_t others, uint64_t at, uint64_t step) {
  struct machine m = {.slot = (uint32_t)others};
  const int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  m.vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  m.region2 = ioctl(m.vm, KVM_CHECK_EXTENSION, CAP_USER_MEMORY2) > 0;
  uint8_t *shared = guest_memory(others * PAGE);
  for (uint64_t n = 0; n < others; n++) set(&m, (uint32_t)n, 0, at + n * step, PAGE, shared + n * PAGE);
  return m;
}

int main(int count, char **arguments) {
  if (count != 8) return 2;
  uint64_t numbers[6];
  for (int n = 0; n < 6; n++) numbers[n] = strtoull(arguments[n + 2], NULL, 0);
  struct machine m = create(numbers[0], numbers[1], numbers[2]);
  m.size = numbers[3];
  m.here = numbers[4];
  m.there = numbers[5];
  if (strcmp(arguments[1], "map") == 0) {
    operation = map_and_unmap;
  } else {
    operation = strcmp(arguments[1], "move") == 0 ? move : toggle;
    m.memory = guest_memory(m.size);
    set(&m, m.slot, 0, m.here, m.size, m.memory);
  }
  serve(batch, &m);
  return 0;
}
