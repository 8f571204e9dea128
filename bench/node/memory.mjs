// The code under test of the memory benchmarks, in TypeScript's place: what bench/rust does, by the package.
//
// memory.mjs OPERATION NUMBER…    OPERATION is a key of OPERATIONS; bench/lib/list.mjs gives the numbers
import { KiB, Vm } from '../../dist/index.js';
import { repeated, serve } from './child.mjs';

const PAGE = 4 * KiB;

/** Each gives what a batch repeats. */
const OPERATIONS = {
  map: (memory, ...numbers) => {
    const options = withOthers(memory, numbers);
    return () => memory.map(options).unmap();
  },
  move: (memory, ...numbers) => {
    const options = withOthers(memory, numbers);
    const slot = memory.map(options);
    const there = numbers.at(-1);
    let moved = false;
    return () => {
      moved = !moved;
      slot.move(moved ? there : options.gpa);
    };
  },
  flags: (memory, ...numbers) => {
    const slot = memory.map(withOthers(memory, numbers));
    let logs = false;
    return () => {
      logs = !logs;
      slot.setDirtyLog(logs);
    };
  },
  read,
  copy: (memory, size) => {
    memory.map({ gpa: 0, size, transparentHugePages: false });
    memory.fill(0, size, 0x5a);
    const target = new Uint8Array(size).fill(1);
    return () => memory.readInto(0, target);
  },
};

function withOthers(memory, [others, at, step, size, gpa]) {
  shares(memory, others, at, step, PAGE);
  return { gpa, size };
}

/** As `read` of bench/rust: the same slots in the same order. */
function read(memory, slots, at, step) {
  shares(memory, slots, at, step, 0);
  const word = new Uint8Array(8);
  let random = 1;
  return () => {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    memory.readInto(at + Math.floor((random / 2 ** 32) * slots) * step, word);
  };
}

/** `count` slots of a page each in one mapping, as in bench/rust. */
function shares(memory, count, at, step, stride) {
  const share = memory.map({ gpa: at + count * step, size: count * PAGE });
  for (let n = 0; n < count; n += 1)
    memory.map({ gpa: at + n * step, size: PAGE, backing: { share, offset: n * stride } });
  share.unmap(); // the memory stays for as long as its shares do
}

const [name, ...numbers] = process.argv.slice(2);
const vm = Vm.create();
await serve(repeated(OPERATIONS[name](vm.memory, ...numbers.map(Number))));
vm.close();
