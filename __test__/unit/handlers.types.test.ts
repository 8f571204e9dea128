import test from 'ava';
import type { Answer, Exit, Handlers, IoExit, MmioExit } from '../../ts/index.ts';

// What stands here is held by the type check (`npm run check -- lint types`): each line below an expectation has to be
// refused, and everything else accepted.

const accepted: Handlers = {
  io: exit => (exit.direction === 'in' ? exit.count : undefined),
  mmio: async exit => (exit.direction === 'read' ? new Uint8Array(exit.size) : 'stop'),
  hlt: () => 'stop',
  intr: () => undefined,
  shutdown: async () => 'stop' as const,
  'fail-entry': async ({ cpu }) => {
    if (cpu === 0) return 'stop';
    return undefined;
  },
  'internal-error': ({ suberror, data }) => (suberror === 1 && data.length === 0 ? 'stop' : undefined),
  'system-event': ({ event, flags }) => (event === 'reset' && flags !== 0n ? 'stop' : undefined),
  'run-failed': ({ errno }) => {
    if (errno < 0) return 'stop';
    return undefined;
  },
  unknown: ({ bytes }) => {
    bytes.fill(0);
  },
};

const answers: readonly Handlers[] = [
  { io: (): Answer => 1 },
  { io: () => 1n },
  { mmio: () => Uint8Array.of(1) },
  { mmio: async () => 1 },
  { hlt: async () => undefined },
  { hlt: undefined },
  {},
];

const refused: readonly Handlers[] = [
  // @ts-expect-error -- no such kind
  { halt: () => 'stop' },
  // @ts-expect-error -- a halt wants no answer
  { hlt: () => 1 },
  // @ts-expect-error -- nor a promise of one
  { shutdown: async () => 1n },
  // @ts-expect-error -- no word but one
  { hlt: () => 'halt' },
  // @ts-expect-error -- text is no answer
  { io: () => 'text' },
  // @ts-expect-error -- nor is a list of numbers
  { mmio: () => [1, 2] },
  // @ts-expect-error -- a handler is a function
  { hlt: 'stop' },
  // @ts-expect-error -- the handler of io gets no mmio
  { io: (exit: MmioExit) => exit.size },
  // @ts-expect-error -- an io exit has no gpa
  { io: exit => exit.gpa },
  // @ts-expect-error -- what is read has no data yet
  { io: exit => exit.data },
];

test('Handlers: each handler gets the exit of its kind, and gives what that wants', t => {
  const io: ((exit: IoExit) => unknown) | undefined = accepted.io;
  const exit: Exit & IoExit = { kind: 'io', direction: 'in', port: 1, size: 1, count: 3 };
  t.is(io?.(exit), 3);
  t.is(answers.length + refused.length, 17);
});
