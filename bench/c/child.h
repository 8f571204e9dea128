// What the C programs of the benchmarks share: failing with the reason, the clock, and bench/lib/child.mjs' protocol.
#pragma once

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { LINE = 64 };

_Noreturn static inline void fail(const char *what) {
  printf("failed %s: %s\n", what, strerror(errno));
  fflush(stdout);
  exit(1);
}

static inline int must(int result, const char *what) {
  if (result < 0) fail(what);
  return result;
}

static inline void *map(size_t size, int flags, int fd) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED) fail("mmap");
  return at;
}

static inline double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

// Says "ready", then has `answer` print a line for each "run COUNT", until stdin ends.
static inline void serve_runs(void (*answer)(void *state, uint32_t count), void *state) {
  char line[LINE];
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    answer(state, (uint32_t)strtoul(line + strlen("run "), NULL, 10));
    fflush(stdout);
  }
}

struct timed {
  double (*batch)(void *state, uint32_t count);
  void *state;
};

static inline void answer_timed(void *state, uint32_t count) {
  const struct timed *timed = state;
  printf("ns %.3f\n", timed->batch(timed->state, count) / count);
}

// The same with "ns NANOSECONDS-PER-OPERATION": `batch` does that many operations on `state` and gives the nanoseconds
// they took.
static inline void serve(double (*batch)(void *state, uint32_t count), void *state) {
  struct timed timed = {batch, state};
  serve_runs(answer_timed, &timed);
}
