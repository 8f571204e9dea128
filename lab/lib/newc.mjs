// cpio's newc format, as far as an initial RAM disk needs it (Documentation/driver-api/early-userspace/buffer-format.rst).

const DIRECTORY = 0o040_755;
const FILE = 0o100_644;
const PROGRAM = 0o100_755;

/** An archive of root's files: `{ path: bytes or text }` in order, each folder before what is in it; programs by name. */
export function newcArchive(files, programs = []) {
  const folders = [...new Set(Object.keys(files).flatMap(foldersOf))];
  const entries = [
    ...folders.map(name => ({ name, mode: DIRECTORY, data: Buffer.alloc(0) })),
    ...Object.entries(files).map(([name, content]) => ({
      name,
      mode: programs.includes(name) ? PROGRAM : FILE,
      data: Buffer.from(content),
    })),
  ];
  const trailer = { name: 'TRAILER!!!', mode: 0, data: Buffer.alloc(0) };
  return Buffer.concat([...entries, trailer].flatMap((entry, index) => record(entry, index + 1)));
}

/** `a/b/c` to `a`, `a/b`. */
function foldersOf(path) {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}

/** One file: a header of hexadecimal fields, name and data each padded to four bytes. */
function record({ name, mode, data }, inode) {
  const path = Buffer.from(`${name}\0`);
  // c_ino, mode, uid, gid, nlink, mtime, filesize, maj, min, rmaj, rmin, namesize, chksum
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, path.length, 0];
  const header = `070701${fields.map(field => field.toString(16).padStart(8, '0')).join('')}`;
  return [padded(Buffer.concat([Buffer.from(header), path])), padded(data)];
}

function padded(bytes) {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
