// The kernel of machine `lab` is what lab/kernel says: its proof, run there.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { proofProgram } from '../kernel/proof/build.mjs';
import { runInMachine } from '../lib/boot.mjs';
import { machineState } from '../lib/prepare.mjs';
import { byId } from '../machines.mjs';

/** The points of the proof: fewer would be a part that did not run. */
const POINTS = 78;
const LIMIT_S = 300;

const machine = byId('lab');
const { ready, why } = machineState(machine);

test('the lab kernel keeps every promise of its proof', { skip: ready ? false : `machine lab: ${why}` }, async () => {
  const output = [];
  const { code, problem, detail } = await runInMachine(machine, [await proofProgram()], {
    timeoutS: LIMIT_S,
    onOutput: bytes => output.push(bytes),
  });
  const text = Buffer.concat(output).toString('utf8');
  assert.equal(problem, undefined, detail);
  assert.deepEqual(text.match(/^not ok .*\n# .*/gm), null);
  assert.equal(text.match(/^ok \d+ - /gm)?.length, POINTS);
  assert.match(text, new RegExp(`^1\\.\\.${POINTS}$`, 'm'));
  assert.equal(code, 0);
});
