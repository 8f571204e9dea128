// The reference of the kick benchmarks: the least that a C program does to stop a vCPU that another thread runs. The guest
// that bench/lib/guests.mjs describes counts for ever; once it is seen to count, immediate_exit is set and the signal sent.
//
// kick CODE ENTRY COUNT_AT SLOT_SIZE    the code, for ring 3 of long mode, in hexadecimal, the rest as numbers
//
// One operation is one kick: from before it until KVM_RUN has returned, by one clock on both threads. Of a batch the line
// has the middle and the p99.
#include "guest.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

struct machine {
  struct guest guest;
  size_t count_at;
  long thread;       // that runs the vCPU
  sem_t ready, go;   // it exists; it is to run the guest
  uint32_t runs;     // as often
  uint64_t returned; // when KVM_RUN did; 0: it has not yet
};

// Where the tables lie in the slot, a page each.
enum { PML4 = 0x2000, PDPT = 0x3000, PD = 0x4000 };

// The first 2 MiB mapped to themselves, for all.
static void make_tables(const struct guest *g) {
  enum { PRESENT_WRITABLE_USER = 7, LARGE = 1 << 7 };
  *(uint64_t *)(g->memory + PML4) = PDPT | PRESENT_WRITABLE_USER;
  *(uint64_t *)(g->memory + PDPT) = PD | PRESENT_WRITABLE_USER;
  *(uint64_t *)(g->memory + PD) = LARGE | PRESENT_WRITABLE_USER;
}

static void boot(const struct guest *g, uint64_t entry) {
  make_tables(g);
  struct kvm_sregs sregs;
  must(ioctl(g->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  const struct kvm_segment data = {
      .limit = UINT32_MAX, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1};
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.cs = data;
  sregs.cs.selector = 0x33;
  sregs.cs.type = 0xb;
  sregs.cs.db = 0;
  sregs.cs.l = 1;
  sregs.cr3 = PML4;
  sregs.cr0 = 1U << 31 | 1 << 5 | 1 << 4 | 1; // PG, NE, ET, PE
  sregs.cr4 = 1 << 5;                         // PAE
  sregs.efer = 1 << 10 | 1 << 8;              // LMA, LME
  must(ioctl(g->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = entry, .rflags = 2};
  must(ioctl(g->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void nothing(int signal) { (void)signal; }

static int kick_signal(void) { return SIGRTMIN + 4; }

// Each run ends by one kick, and nothing but kicks ends one.
static void *run_guest(void *state) {
  struct machine *m = state;
  must(prctl(PR_SET_NAME, "kvm-vcpu"), "prctl"); // by which the harness finds it
  m->thread = syscall(SYS_gettid);
  sem_post(&m->ready);
  for (;;) {
    while (sem_wait(&m->go) != 0) {}
    for (uint32_t n = m->runs; n > 0; n--) {
      if (ioctl(m->guest.vcpu, KVM_RUN, 0) >= 0 || errno != EINTR) fail("KVM_RUN");
      const uint64_t now = (uint64_t)now_ns();
      m->guest.run->immediate_exit = 0;
      __atomic_store_n(&m->returned, now, __ATOMIC_RELEASE);
    }
  }
  return NULL;
}

static uint32_t counted(const struct machine *m) {
  return __atomic_load_n((const uint32_t *)(m->guest.memory + m->count_at), __ATOMIC_RELAXED);
}

static uint64_t kick(struct machine *m) {
  const uint32_t before = counted(m);
  while (counted(m) == before) {} // on its way into the guest
  const uint64_t start = (uint64_t)now_ns();
  __atomic_store_n(&m->guest.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
  if (syscall(SYS_tgkill, getpid(), m->thread, kick_signal()) != 0) fail("tgkill");
  uint64_t returned;
  while ((returned = __atomic_exchange_n(&m->returned, 0, __ATOMIC_ACQUIRE)) == 0) {}
  return returned - start;
}

static int by_size(const void *a, const void *b) {
  const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

static void answer(void *state, uint32_t count) {
  struct machine *m = state;
  uint64_t *took = calloc(count, sizeof *took);
  if (took == NULL) fail("calloc");
  m->runs = count;
  sem_post(&m->go);
  for (uint32_t n = 0; n < count; n++) took[n] = kick(m);
  qsort(took, count, sizeof *took, by_size);
  printf("ns %.3f p99=%.3f\n", (double)took[count / 2], (double)took[(uint64_t)count * 99 / 100]);
  free(took);
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  const uint64_t entry = strtoull(arguments[2], NULL, 0);
  struct machine m = {.count_at = strtoul(arguments[3], NULL, 0)};
  m.guest = create_guest(arguments[1], entry, strtoul(arguments[4], NULL, 0));
  boot(&m.guest, entry);
  const struct sigaction handler = {.sa_handler = nothing, .sa_flags = SA_RESTART};
  must(sigaction(kick_signal(), &handler, NULL), "sigaction");
  must(sem_init(&m.ready, 0, 0), "sem_init");
  must(sem_init(&m.go, 0, 0), "sem_init");
  pthread_t thread;
  if ((errno = pthread_create(&thread, NULL, run_guest, &m)) != 0) fail("pthread_create");
  while (sem_wait(&m.ready) != 0) {}
  serve_runs(answer, &m);
  return 0; // ends the other thread as well
}
