// A VM with one slot of memory and one vCPU, as Typevisor makes it: what the C programs have that run a guest.
#pragma once

#include "child.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { CPUID_ENTRIES = 256 };

struct guest {
  int kvm;
  int vm;
  int vcpu;
  struct kvm_run *run;
  uint8_t *memory;
};

// What Typevisor gives a vCPU as well.
static inline void set_cpuid(const struct guest *g) {
  struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + CPUID_ENTRIES * sizeof cpuid->entries[0]);
  if (cpuid == NULL) fail("calloc");
  cpuid->nent = CPUID_ENTRIES;
  must(ioctl(g->kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
  must(ioctl(g->vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
  free(cpuid);
}

// `hex` is the guest's code, which comes to `entry`. Its registers are the caller's to set.
static inline struct guest create_guest(const char *hex, uint64_t entry, size_t slot_size) {
  struct guest g = {.kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm")};
  g.vm = must(ioctl(g.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  g.memory = map(slot_size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  unsigned byte;
  for (uint8_t *to = g.memory + entry; sscanf(hex, "%2x", &byte) == 1; hex += 2) *to++ = (uint8_t)byte;
  struct kvm_userspace_memory_region slot = {.memory_size = slot_size, .userspace_addr = (uintptr_t)g.memory};
  must(ioctl(g.vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
  g.vcpu = must(ioctl(g.vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  g.run = map((size_t)must(ioctl(g.kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"), MAP_SHARED, g.vcpu);
  set_cpuid(&g);
  return g;
}
