// Completing a lockfile.
import assert from 'node:assert/strict';
import test from 'node:test';
import { completeLock } from '../lib/complete-lock.mjs';

const lock = {
  lockfileVersion: 3,
  packages: {
    '': { optionalDependencies: { 'own-linux-x64-gnu': '1.0.0' } },
    'node_modules/tool': {
      version: '2.0.0',
      dev: true,
      optionalDependencies: {
        '@tool/here': '2.0.0',
        '@tool/linux-arm64-musl': '2.0.0',
        '@tool/darwin-x64': '2.0.0',
        ranged: '^1.0.0',
      },
    },
    'node_modules/@tool/here': { version: '2.0.0', integrity: 'sha512-x' },
    'node_modules/a/node_modules/b': {
      version: '3.0.0',
      optionalDependencies: { '@b/win32-x64-msvc': '3.0.0', '@tool/here': '2.0.0' },
    },
  },
};

test('adds what is missing beside the package that wants it, with its platform', () => {
  const { lock: complete, added } = completeLock(lock);
  assert.deepEqual(added.toSorted(), [
    'node_modules/@tool/darwin-x64',
    'node_modules/@tool/linux-arm64-musl',
    'node_modules/a/node_modules/@b/win32-x64-msvc',
  ]);
  assert.deepEqual(complete.packages['node_modules/@tool/linux-arm64-musl'], {
    version: '2.0.0',
    cpu: ['arm64'],
    dev: true,
    libc: ['musl'],
    optional: true,
    os: ['linux'],
  });
});

test('a complete lockfile stays as it is', () => {
  const { lock: complete } = completeLock(lock);
  assert.deepEqual(completeLock(complete), { lock: complete, added: [] });
});
