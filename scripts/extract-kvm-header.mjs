#!/usr/bin/env node
// Reads unpacked kernel uapi headers and writes the lists that our tables are compared with:
// crates/core/header/{capabilities,exits,ioctls}.txt. Plain Node, no dependencies.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HELP = `usage: node scripts/extract-kvm-header.mjs FOLDER [FOLDER …] [--out FOLDER]

FOLDER  where the package linux-libc-dev of the newest kernel was unpacked (dpkg-deb -x FILE FOLDER); two
        folders, amd64 and arm64, where the distribution has one package an architecture. Nothing is installed.
--out   where the lists go (default: crates/core/header)

Each line is a name and a number, sorted by number. An entry of asm/kvm.h is followed by its architecture,
an ioctl by its direction and, if it has one, its argument's type.
`;

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const ARCHES = { x86_64: ['x86', 'x86_64-linux-gnu'], aarch64: ['arm64', 'aarch64-linux-gnu'] };

/** The first of `candidates` below one of `folders`. */
function find(folders, candidates) {
  const file = folders.flatMap(folder => candidates.map(name => join(folder, name))).find(existsSync);
  if (!file) throw new Error(`none of ${candidates.join(', ')} in ${folders.join(', ')}`);
  return file;
}

/** Header text without comments and with continued lines joined. */
function read(file) {
  return readFileSync(file, 'utf8')
    .replaceAll(/\/\*[^]*?\*\//g, ' ')
    .replaceAll(/\\\n/g, ' ');
}

/** `#define`s that stand outside every struct: those inside name values of a field, not exit reasons. */
function defines(text) {
  let depth = 0;
  const found = [];
  for (const line of text.split('\n')) {
    const define = /^#\s*define\s+(\w+)\s+(.+?)\s*$/.exec(line);
    if (define && depth === 0) found.push({ name: define[1], value: define[2] });
    if (!define) depth += (line.match(/\{/g) ?? []).length - (line.match(/\}/g) ?? []).length;
  }
  return found;
}

/** Numbers behind a prefix, such as `KVM_CAP_`. */
function numbers(entries, prefix) {
  return entries
    .filter(({ name, value }) => name.startsWith(prefix) && /^(0x[0-9a-f]+|\d+)$/i.test(value))
    .map(({ name, value, arch }) => ({ number: Number(value), columns: [name, String(Number(value)), arch] }));
}

/** Requests: number inside KVM's range, direction, argument type. */
function requests(entries) {
  return entries.flatMap(({ name, value, arch }) => {
    const match = /^(_IO|_IOR|_IOW|_IOWR)\(KVMIO,\s*(0x[0-9a-f]+)\s*(?:,\s*(.+?)\s*)?\)$/i.exec(value);
    if (!match) return [];
    const hex = `0x${Number(match[2]).toString(16).padStart(2, '0')}`;
    const type = match[3]?.replaceAll(/\s+/g, ' ');
    return [{ number: Number(match[2]), columns: [name, hex, match[1], type, arch] }];
  });
}

function write(out, file, what, version, rows) {
  const lines = rows
    .toSorted((a, b) => a.number - b.number || (a.columns[0] < b.columns[0] ? -1 : 1))
    .map(({ columns }) => columns.filter(Boolean).join(' '));
  const head =
    `# ${what} in the uapi headers of Linux ${version} (x86_64 and aarch64). Generated: unpack linux-libc-dev of a newer\n` +
    '# kernel (apt-get download, dpkg-deb -x; not installed), then: node scripts/extract-kvm-header.mjs FOLDER\n';
  writeFileSync(join(out, file), `${head}${lines.join('\n')}\n`);
  process.stdout.write(`${join(out, file)}: ${lines.length}\n`);
}

function main(argv) {
  const folders = [];
  let out = join(ROOT, 'crates/core/header');
  for (let i = 0; i < argv.length; i += 1) {
    if (argv[i] === '--help' || argv[i] === '-h') {
      process.stdout.write(HELP);
      return;
    }
    if (argv[i] === '--out' && argv[i + 1]) out = argv[(i += 1)];
    else if (argv[i].startsWith('-')) throw new Error(`unknown option ${argv[i]}\n${HELP}`);
    else folders.push(argv[i]);
  }
  if (folders.length === 0) throw new Error(`no folder given\n${HELP}`);
  const code = Number(
    /LINUX_VERSION_CODE\s+(\d+)/.exec(readFileSync(find(folders, ['usr/include/linux/version.h']), 'utf8'))?.[1],
  );
  const version = [code >> 16, (code >> 8) & 255, code & 255].join('.');
  const entries = defines(read(find(folders, ['usr/include/linux/kvm.h'])));
  for (const [arch, [uapi, triple]] of Object.entries(ARCHES)) {
    const file = find(folders, [`usr/lib/linux/uapi/${uapi}/asm/kvm.h`, `usr/include/${triple}/asm/kvm.h`]);
    for (const { name, value } of defines(read(file))) entries.push({ name, value, arch });
  }
  write(out, 'capabilities.txt', 'Capabilities', version, numbers(entries, 'KVM_CAP_'));
  write(out, 'exits.txt', 'Exit reasons', version, numbers(entries, 'KVM_EXIT_'));
  write(out, 'ioctls.txt', 'Requests (number within KVMIO, 0xae)', version, requests(entries));
}

try {
  main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`extract-kvm-header: ${error.message}\n`);
  process.exitCode = 1;
}
