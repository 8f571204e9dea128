// What a build takes and the machine lacks is named with the command that installs it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KERNEL_TOOLS, SELFTEST_TOOLS, missingPackages, needTools } from '../lib/tools.mjs';

const THERE = { package: 'there', there: () => true };
const ABSENT = { package: 'absent-package', there: () => false };

/** The names of the packages. */
function packages(tools) {
  return tools.map(tool => tool.package);
}

test('what is missing is named by its package', () => {
  assert.deepEqual(missingPackages([THERE, ABSENT]), ['absent-package']);
});

test('where nothing may be installed the command is said', async context => {
  const before = process.env.TYPEVISOR_SETUP;
  process.env.TYPEVISOR_SETUP = 'off';
  context.after(() => {
    if (before === undefined) delete process.env.TYPEVISOR_SETUP;
    else process.env.TYPEVISOR_SETUP = before;
  });
  const wanted = /building it takes absent-package\. Install it: .*apt-get install .*absent-package/;
  await assert.rejects(needTools([THERE, ABSENT], 'building it'), wanted);
  await needTools([THERE], 'building it');
});

test('the selftests take less than the kernel', () => {
  assert.ok(packages(SELFTEST_TOOLS).every(name => packages(KERNEL_TOOLS).includes(name)));
  assert.ok(!packages(SELFTEST_TOOLS).includes('bison'));
});
