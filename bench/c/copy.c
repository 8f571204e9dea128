// The reference for the host's reads: memcpy out of memory made as guest memory is, into a buffer of the program's own.
//
// copy SIZE    one operation is one copy of SIZE bytes
#include "child.h"

struct buffers {
  size_t size;
  uint8_t *memory, *target;
};

static double batch(void *state, uint32_t count) {
  const struct buffers *b = state;
  const double start = now_ns();
  for (uint32_t n = 0; n < count; n++) {
    memcpy(b->target, b->memory, b->size);
    __asm__ volatile("" : : "r"(b->target) : "memory"); // every copy is looked at
  }
  return now_ns() - start;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  struct buffers b = {.size = strtoul(arguments[1], NULL, 0)};
  b.memory = map(b.size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  madvise(b.memory, b.size, MADV_NOHUGEPAGE); // Typevisor's has none either; a kernel that refuses knows none
  b.target = malloc(b.size);
  if (b.target == NULL) fail("malloc");
  memset(b.memory, 0x5a, b.size);
  memset(b.target, 0, b.size);
  serve(batch, &b);
  return 0;
}
