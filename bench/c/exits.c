// The reference of the exit benchmarks: the least that a C program does for a guest's port writes. It maps one slot, runs
// the guest that bench/lib/guests.mjs describes, and counts its writes until it halts.
//
// exits CODE ENTRY COUNT_AT SLOT_SIZE [PORT]    the code in hexadecimal, the rest as numbers; with a port, KVM gathers the
//                                               writes to it in its ring (coalesced port I/O), which is emptied at each exit
//
// One operation is one write.
#include "guest.h"

struct machine {
  struct guest guest;
  struct kvm_coalesced_mmio_ring *ring; // or NULL
  size_t count_at;
  uint32_t sum;
};

static void boot(const struct guest *g, uint64_t entry) {
  struct kvm_sregs sregs;
  must(ioctl(g->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  must(ioctl(g->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = entry, .rflags = 2};
  must(ioctl(g->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

// Lets KVM gather writes to the port.
static void gather(struct machine *m, const char *port) {
  const int vm = m->guest.vm;
  const int page = must(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO), "KVM_CAP_COALESCED_MMIO");
  struct kvm_coalesced_mmio_zone zone = {.addr = strtoull(port, NULL, 0), .size = 1, .pio = 1};
  must(ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone), "KVM_REGISTER_COALESCED_MMIO");
  m->ring = (void *)((uint8_t *)m->guest.run + (size_t)page * (size_t)sysconf(_SC_PAGESIZE));
}

static struct machine create(char **arguments) {
  const uint64_t entry = strtoull(arguments[2], NULL, 0);
  struct machine m = {.count_at = strtoul(arguments[3], NULL, 0)};
  m.guest = create_guest(arguments[1], entry, strtoul(arguments[4], NULL, 0));
  if (arguments[5] != NULL) gather(&m, arguments[5]);
  boot(&m.guest, entry);
  return m;
}

// Takes what KVM has gathered; gives how many writes that was.
static uint32_t drain(struct machine *m) {
  const uint32_t entries = (uint32_t)((sysconf(_SC_PAGESIZE) - sizeof *m->ring) / sizeof m->ring->coalesced_mmio[0]);
  const uint32_t last = __atomic_load_n(&m->ring->last, __ATOMIC_ACQUIRE);
  uint32_t first = m->ring->first, taken = 0;
  for (; first != last; first = (first + 1) % entries, taken++) m->sum += m->ring->coalesced_mmio[first].data[0];
  __atomic_store_n(&m->ring->first, first, __ATOMIC_RELEASE);
  return taken;
}

// Runs the guest until it halts; gives how many bytes it wrote to ports. The sum keeps the byte's load alive.
static uint32_t run(struct machine *m) {
  const int vcpu = m->guest.vcpu;
  struct kvm_run *exit = m->guest.run;
  for (uint32_t writes = 0;; writes++) {
    if (ioctl(vcpu, KVM_RUN, 0) < 0) fail("KVM_RUN");
    if (m->ring != NULL) writes += drain(m);
    if (exit->exit_reason == KVM_EXIT_HLT) return writes;
    if (exit->exit_reason != KVM_EXIT_IO || exit->io.direction != KVM_EXIT_IO_OUT) fail("unexpected exit");
    m->sum += *((const uint8_t *)exit + exit->io.data_offset);
  }
}

static double batch(void *state, uint32_t writes) {
  struct machine *m = state;
  memcpy(m->guest.memory + m->count_at, &writes, sizeof writes);
  const double start = now_ns();
  const uint32_t seen = run(m);
  const double end = now_ns();
  if (seen != writes) fail("the guest wrote another number of times");
  return end - start;
}

int main(int count, char **arguments) {
  if (count != 5 && count != 6) return 2;
  struct machine m = create(arguments);
  serve(batch, &m);
  return m.sum == UINT32_MAX;
}
