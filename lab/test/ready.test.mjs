// Which machines run where one stands in for another.
import assert from 'node:assert/strict';
import test from 'node:test';
import { unmetPromises } from '../lib/has.mjs';
import { withoutTwins } from '../lib/ready.mjs';
import { parseHas } from '../lib/report.mjs';
import { byId } from '../machines.mjs';

const [lab, newest] = [byId('lab'), byId('newest')];

test('a machine that stands in for another runs, and once', () => {
  assert.deepEqual(withoutTwins([{ wanted: lab, machine: newest }])[0].machine, newest);
  const [first, second] = withoutTwins([
    { wanted: lab, machine: newest },
    { wanted: newest, machine: newest },
  ]);
  assert.match(first.reason, /newest runs anyway/);
  assert.equal(second.machine, newest);
  assert.equal(withoutTwins([{ wanted: lab, machine: lab }])[0].machine, lab);
});

test('an image that lacks what the lab is for is refused by name; other machines promise nothing', () => {
  const whole = 'default 10236=1 236=1 software-protected 233=8 234=1';
  assert.equal(unmetPromises(lab, parseHas(whole)), undefined);
  assert.match(
    unmetPromises(lab, parseHas('default 10236=1 236=1')),
    /memory-attributes \(software-protected VM\), guest-memfd/,
  );
  assert.match(
    unmetPromises(lab, parseHas(whole.replace('10236=1', '10236=0'))),
    /lacks exit-on-missing \(default VM\):/,
  );
  assert.equal(unmetPromises(newest, parseHas('default 231=1')), undefined);
});
