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

// Says "ready", then answers each "run COUNT" with "ns NANOSECONDS-PER-OPERATION", until stdin ends. `batch` does that
// many operations on `state` and gives the nanoseconds they took.
static inline void serve(double (*batch)(void *state, uint32_t count), void *state) {
  char line[LINE];
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    const uint32_t count = (uint32_t)strtoul(line + strlen("run "), NULL, 10);
    printf("ns %.3f\n", batch(state, count) / count);
    fflush(stdout);
  }
}
