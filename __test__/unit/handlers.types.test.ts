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
  hypercall: exit => (exit.arch === 'x86_64' ? exit.args[0] : 'stop'),
  debug: exit => (exit.arch === 'aarch64' && exit.far !== 1n ? undefined : 'stop'),
  hyperv: exit => (exit.type === 'hcall' ? exit.params[0] : undefined),
  xen: exit => (exit.type === 'hcall' ? 0n : 'stop'),
  rdmsr: ({ index }) => (index === 0x1b ? 0n : 'fault'),
  wrmsr: async ({ data }) => (data === 0n ? ('fault' as const) : undefined),
  'memory-fault': ({ cause, access }) => (cause === 'poison' || access === 'private' ? 'stop' : undefined),
  tdx: ({ nr }) => (nr === 0x10002n ? new Uint8Array(48) : undefined),
  'snp-req-certs': ({ npages }) => (npages > 1n ? 0 : 28),
};

const answers: readonly Handlers[] = [
  { io: (): Answer => 1 },
  { io: () => 1n },
  { mmio: () => Uint8Array.of(1) },
  { mmio: async () => 1 },
  { hlt: async () => undefined },
  { hlt: undefined },
  { wrmsr: () => 'stop' },
  { rdmsr: async () => 'fault' as const },
  { 'dirty-ring-full': () => undefined },
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
  // @ts-expect-error -- a register that is read has to be given
  { rdmsr: () => undefined },
  // @ts-expect-error -- and nothing stops there
  { rdmsr: () => 'stop' },
  // @ts-expect-error -- one that is written takes no value
  { wrmsr: () => 1n },
  // @ts-expect-error -- a port does not fault
  { io: () => 'fault' },
  // @ts-expect-error -- what takes an answer takes a value
  { tdx: () => 'fault' },
  // @ts-expect-error -- a bus lock wants no answer
  { 'bus-lock': () => 0 },
];

test('Handlers: each handler gets the exit of its kind, and gives what that wants', t => {
  const io: ((exit: IoExit) => unknown) | undefined = accepted.io;
  const exit: Exit & IoExit = { kind: 'io', direction: 'in', port: 1, size: 1, count: 3 };
  t.is(io?.(exit), 3);
  t.is(answers.length + refused.length, 26);
});
