// Compressed bytes of kernels and their modules, unpacked by the system's tools, and the ELF inside a bzImage.
import { spawnSync } from 'node:child_process';
import { gunzipSync } from 'node:zlib';
import { Stop } from '../../scripts/lib/say.mjs';
import { installCommand } from '../../scripts/lib/system.mjs';

/** No kernel or module unpacks to more. */
const MAX_BYTES = 1 << 30;

const FORMATS = [
  { name: 'gzip', magic: [0x1f, 0x8b], unpack: bytes => gunzipSync(bytes) },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], ...tool('xz', ['-dc'], 'xz-utils') },
  { name: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd], ...tool('zstd', ['-qdc'], 'zstd') },
  { name: 'lzma', magic: [0x5d, 0, 0], ...tool('xz', ['--format=lzma', '-dc'], 'xz-utils') },
];

function tool(command, args, debian) {
  const unpack = bytes => {
    const { status, stdout, stderr, error } = spawnSync(command, args, { input: bytes, maxBuffer: MAX_BYTES });
    if (error?.code === 'ENOENT') throw new Stop(`lab: ${command} is needed. Install it: ${installCommand([debian])}`);
    if (status !== 0) throw new Stop(`lab: ${command} could not unpack: ${(error?.message ?? String(stderr)).trim()}`);
    return stdout;
  };
  return { unpack };
}

/** The format of compressed bytes; undefined if it is none of those known here. */
function formatOf(bytes) {
  return FORMATS.find(({ magic }) => magic.every((byte, index) => bytes[index] === byte));
}

/** A kernel module as the kernel takes it. */
export function moduleBytes(bytes) {
  return isElf(bytes) ? bytes : unpackElf(bytes, 'a module');
}

/**
 * The kernel inside a bzImage (Documentation/arch/x86/boot.rst, "payload_offset"). QEMU boots it directly (PVH), so
 * that no emulated processor has to run the unpacker, which takes four seconds.
 */
export function kernelInside(image) {
  if (image.length < 0x250 || image.toString('latin1', 0x202, 0x206) !== 'HdrS')
    throw new Stop('lab: the kernel is no bzImage');
  const setup = ((image[0x1f1] || 4) + 1) * 512;
  const begin = setup + image.readUInt32LE(0x248);
  const end = begin + image.readUInt32LE(0x24c);
  if (end > image.length || end - begin < 16) throw new Stop('lab: the kernel is truncated');
  const payload = image.subarray(begin, end);
  // All but gzip, which has it in its own format, are followed by the unpacked size: an end that tools stumble over.
  const isGzip = formatOf(payload)?.name === 'gzip';
  const kernel = unpackElf(isGzip ? payload : payload.subarray(0, -4), 'the kernel');
  const size = payload.readUInt32LE(payload.length - 4);
  if (kernel.length !== size) throw new Stop(`lab: the kernel unpacks to ${kernel.length} bytes, not ${size}`);
  return kernel;
}

function unpackElf(bytes, what) {
  const format = formatOf(bytes);
  if (!format) throw new Stop(`lab: ${what} is packed in an unknown way (${bytes.toString('hex', 0, 6)})`);
  const unpacked = format.unpack(bytes);
  if (!isElf(unpacked)) throw new Stop(`lab: ${what} (${format.name}) unpacks to something else than ELF`);
  return unpacked;
}

function isElf(bytes) {
  return bytes.toString('latin1', 0, 4) === '\x7fELF';
}

/** Whether this is an aarch64 kernel as a boot loader starts it (Documentation/arch/arm64/booting.rst). */
export function isArm64Image(image) {
  return image.length > 64 && image.toString('latin1', 0x38, 0x3c) === 'ARM\x64';
}
