// Where Debian is, out of a machine's own apt sources: both forms, other vendors' entries among them.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { debianEntries, parseSources, parseStanzas, suiteSources } from '../lib/sources.mjs';
import { machineEntries, parseUris } from '../lib/suites.mjs';

const DEB822 = `Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
`;
const KEY = '/usr/share/keyrings/debian-archive-keyring.gpg';
const MAIN = {
  uris: ['http://mirror.example/debian'],
  suites: ['bookworm', 'bookworm-updates'],
  components: ['main'],
  signedBy: KEY,
};
const SECURITY = {
  uris: ['http://mirror.example/debian-security'],
  suites: ['bookworm-security'],
  components: ['main', 'contrib'],
  signedBy: KEY,
};

test('deb822 entries are read; sources of source packages and disabled ones are left out', () => {
  assert.deepEqual(parseSources(DEB822, true), [MAIN, SECURITY]);
});

test('one-line entries are read, with and without options', () => {
  const text = `# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=${KEY}] http://mirror.example/debian bookworm main contrib # trailing
deb http://mirror.example/debian-security bookworm-security main
deb-src http://mirror.example/debian bookworm main
`;
  assert.deepEqual(parseSources(text, false), [
    { uris: ['http://mirror.example/debian'], suites: ['bookworm'], components: ['main', 'contrib'], signedBy: KEY },
    {
      uris: ['http://mirror.example/debian-security'],
      suites: ['bookworm-security'],
      components: ['main'],
      signedBy: undefined,
    },
  ]);
});

test('a key that stands in the entry itself keeps its lines', () => {
  const text =
    'Types: deb\nURIs: http://m.example/debian\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN PGP-----\n .\n abc\n';
  const [entry] = parseSources(text, true);
  const [again] = parseStanzas(suiteSources({ main: entry }, ['amd64']));
  assert.equal(again['Signed-By'], '\n -----BEGIN PGP-----\n .\n abc');
});

test("Debian's archive is told from a vendor's packages for the same suite", () => {
  const vendor = {
    uris: ['http://vendor.example/node'],
    suites: ['bookworm'],
    components: ['main'],
    signedBy: '/usr/share/keyrings/vendor.gpg',
  };
  assert.deepEqual(debianEntries([vendor, MAIN, SECURITY]), { main: MAIN, security: SECURITY });
  const mirror = { ...MAIN, signedBy: undefined };
  assert.equal(debianEntries([vendor, mirror]).main, mirror);
  assert.equal(debianEntries([vendor, mirror]).security, undefined);
});

test('a machine of another distribution has no such entry', () => {
  const other = {
    uris: ['http://mirror.example/ubuntu'],
    suites: ['noble', 'noble-updates'],
    components: ['main', 'universe'],
  };
  assert.deepEqual(debianEntries([other]), { main: undefined, security: undefined });
});

test("the view's entries name the other suites at the machine's addresses", () => {
  const [main, security, ...more] = parseSources(
    suiteSources({ main: MAIN, security: SECURITY }, ['amd64', 'arm64']),
    true,
  );
  assert.deepEqual(main, {
    ...MAIN,
    suites: ['bullseye', 'bookworm', 'bookworm-backports', 'trixie', 'trixie-backports'],
  });
  assert.deepEqual(security.suites, ['bullseye-security', 'bookworm-security', 'trixie-security']);
  assert.deepEqual(more, []);
  assert.equal(parseSources(suiteSources({ main: MAIN }, ['amd64']), true).length, 1);
});

test("a machine's entries come from sources.list and from the files beside it", t => {
  const folder = mkdtempSync(join(tmpdir(), 'typevisor-apt-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'sources.list.d'));
  writeFileSync(join(folder, 'sources.list'), 'deb http://one.example/debian trixie main\n');
  writeFileSync(join(folder, 'sources.list.d/debian.sources'), DEB822);
  writeFileSync(join(folder, 'sources.list.d/debian.sources.save'), DEB822);
  assert.deepEqual(
    machineEntries(folder).map(({ uris: [uri] }) => uri),
    ['http://one.example/debian', ...MAIN.uris, ...SECURITY.uris],
  );
});

test('what apt says of a file is read whole; lines about something else are not', () => {
  const hash = 'a'.repeat(64);
  const lines = [
    'Reading lists',
    `'http://m.example/pool/x_1%3a2_arm64.deb' x_1%3a2_arm64.deb 70550672 SHA256:${hash}`,
    "'http://m.example/y' y 1 MD5Sum:abc",
  ];
  assert.deepEqual(parseUris(lines), [
    { uri: 'http://m.example/pool/x_1%3a2_arm64.deb', name: 'x_1%3a2_arm64.deb', size: 70_550_672, sha256: hash },
  ]);
});
