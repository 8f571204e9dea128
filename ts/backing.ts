/** What a program maps, and what stands behind it: checked, and as the addon takes it. */

import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { boolean, bytes, integer, invalid, oneOf, options } from './check.ts';
import { messageOf, TypevisorError } from './errors.ts';
import type { GpaRange } from './memory.ts';
import type { NativeBacking, NativeMapOptions } from './native.ts';
import { type MemorySlot, slotParts } from './slot.ts';

/** Huge pages, reserved when they are mapped: where the machine has not as many free, that is `ERR_LIMIT`. */
export interface HugetlbBacking {
  /** Size of one, in bytes: one of those this machine has, as `2 * MiB`. The slot's size is a multiple of it. */
  readonly hugetlb: number;
}

/** A regular file, from `offset` on: as long as the slot at least. */
export interface FileBacking {
  /**
   * Path, `file:` URL, or a descriptor that is open for reading, for `'shared'` also for writing. A descriptor is
   * duplicated: close yours when you like.
   *
   * A read-only slot can also have a `'shared'` file that may not be written, or is not open for it: that slot stays
   * read-only (`setReadonly(false)` is `ERR_INVALID_ARGUMENT`), to the host as well (`ERR_HOST_ACCESS`).
   */
  readonly file: string | URL | number;
  /** Where in the file the slot begins, in bytes, a multiple of the page size. Default 0. */
  readonly offset?: number | undefined;
  /**
   * `'private'`: what the guest or the host writes stays in this VM, but is lost where the file is cut short before it.
   * `'shared'`: it goes to the file, and what others write there is seen. Default `'private'`.
   *
   * A guest that touches what a file no longer has stops: by a `run-failed` exit (`EFAULT`), or where KVM interprets the
   * instruction by an `mmio` exit.
   */
  readonly mode?: 'private' | 'shared' | undefined;
}

/**
 * Memory of JavaScript's. It has to begin at a page: a growable `SharedArrayBuffer` does (`new SharedArrayBuffer(n, {
 * maxByteLength: n })`), one of fixed length need not, and is refused (`ERR_UNALIGNED`).
 */
export interface BufferBacking {
  /** At least as long as the slot, which gets its first bytes. */
  readonly buffer: SharedArrayBuffer;
}

/** The memory of another slot, at one more guest address; also that of another VM of this thread's. */
export interface ShareBacking {
  /** Whose memory. It may be unmapped later: the memory stays for as long as one of its slots. */
  readonly share: MemorySlot;
  /** Where in that slot the new one begins, in bytes, a multiple of 4 KiB. Default 0. */
  readonly offset?: number | undefined;
}

/**
 * What stands behind a slot. None of it follows a fork: Node's `spawn` neither copies nor sees guest memory.
 *
 * | | Costs | The host's reads and writes |
 * |---|---|---|
 * | `'anonymous'` | memory as it is touched, zeroed | direct: no aligned word of up to 8 bytes is torn |
 * | `'memfd'` | the same, as a file in memory that cannot change its size | direct |
 * | {@link HugetlbBacking} | all of it at once, from the pages the administrator set aside | by the kernel: words may be torn |
 * | {@link FileBacking} | page cache; `'private'` a copy of each page written | by the kernel: words may be torn; where the file was cut short, `ERR_HOST_ACCESS` |
 * | {@link BufferBacking} | what the buffer costs; kept while a slot is on it | direct; `slot.view()` is the buffer itself |
 * | `'guest-memfd'` | memory as it is touched; it is never read-only, moved or dirty-logged. Needs `guest-memfd-flags` (Linux 6.18) and `user-memory2` (6.8) | by the kernel: words may be torn |
 * | {@link ShareBacking} | nothing more | as that of the slot shared |
 */
export type Backing =
  | 'anonymous'
  | 'memfd'
  | 'guest-memfd'
  | HugetlbBacking
  | FileBacking
  | BufferBacking
  | ShareBacking;

/** What to map. */
export interface MapOptions extends GpaRange {
  /** First guest physical address in bytes, a multiple of 4 KiB. */
  readonly gpa: number;
  /** Bytes, a multiple of 4 KiB. */
  readonly size: number;
  /** What stands behind it. Default `'anonymous'`. */
  readonly backing?: Backing | undefined;
  /** The guest cannot write to it: its writes are `mmio` exits. Needs `readonly-mem` (Linux 3.7). Default `false`. */
  readonly readonly?: boolean | undefined;
  /** KVM's number for the slot. Default: the lowest that is free. */
  readonly slot?: number | undefined;
  /**
   * The address space it appears in: 0, or on x86_64 1, what a processor in system management mode sees. That needs
   * `multi-address-space` (Linux 4.2). Default: that of the memory it is mapped through.
   */
  readonly addressSpace?: number | undefined;
  /**
   * Let the kernel use huge pages where it can: for `'anonymous'` and `'memfd'` of 2 MiB and more. `false` saves memory
   * where a guest touches little of it. Default `true`.
   */
  readonly transparentHugePages?: boolean | undefined;
}

/** Slot numbers KVM has room for in its request; how many there are says the capability `nr-memslots`. */
const SLOT_NUMBER_MAX = 0xffff;
/** As many address spaces KVM has room for; how many there are says `multi-address-space`. */
export const ADDRESS_SPACE_MAX = 0xffff;
const FD_MAX = 2 ** 31 - 1;

const PLAIN = ['anonymous', 'memfd', 'guest-memfd'] as const;
const FIELDS = ['gpa', 'size', 'backing', 'readonly', 'slot', 'addressSpace', 'transparentHugePages'];
const EXPECTED = "'anonymous', 'memfd', 'guest-memfd' or an object with hugetlb, file, buffer or share";

/** A mapping to ask for, and the bytes of it that JavaScript has. */
export interface MapRequest {
  readonly request: NativeMapOptions;
  readonly bytes: Uint8Array | undefined;
}

const ANONYMOUS: NativeBacking = Object.freeze({ kind: 'anonymous' });

/** Checks what a program wants mapped. */
export function mapRequest(how: MapOptions): MapRequest {
  const given = options<MapOptions>(how, 'map options', FIELDS);
  const { backing = 'anonymous', readonly = false, slot, addressSpace, transparentHugePages = true } = given;
  const size = bytes(given.size, 'size');
  // One object, in one go: mapping is measured in microseconds.
  const request: NativeMapOptions = {
    gpa: bytes(given.gpa, 'gpa'),
    size,
    readonly: boolean(readonly, 'readonly'),
    slot: slot === undefined ? null : integer(slot, 'slot', 0, SLOT_NUMBER_MAX),
    addressSpace: addressSpace === undefined ? null : integer(addressSpace, 'addressSpace', 0, ADDRESS_SPACE_MAX),
    transparentHugePages: boolean(transparentHugePages, 'transparentHugePages'),
    backing: ANONYMOUS,
  };
  if (backing === 'anonymous') return { request, bytes: undefined };
  const behind = backingRequest(backing, size);
  request.backing = behind.backing;
  return { request, bytes: behind.own };
}

/** One may begin at a page by chance: that a program works by chance helps nobody. */
const FIXED_LENGTH =
  'a SharedArrayBuffer of fixed length need not begin at a page, as KVM wants it; a growable one does: ' +
  'new SharedArrayBuffer(n, { maxByteLength: n })';

interface BackingRequest {
  readonly backing: NativeBacking;
  readonly own?: Uint8Array | undefined;
}

function backingRequest(backing: Backing, size: number): BackingRequest {
  const plain = PLAIN.find(name => name === backing);
  if (plain !== undefined) return { backing: { kind: plain } };
  if (typeof backing !== 'object' || backing === null) throw invalid('backing', EXPECTED, backing);
  if ('hugetlb' in backing) return { backing: hugetlbRequest(backing) };
  if ('file' in backing) return { backing: fileRequest(backing) };
  if ('buffer' in backing) return bufferRequest(backing, size);
  if ('share' in backing) return shareRequest(backing, size);
  throw invalid('backing', EXPECTED, backing);
}

function hugetlbRequest(backing: HugetlbBacking): NativeBacking {
  const { hugetlb } = options<HugetlbBacking>(backing, 'a hugetlb backing', ['hugetlb']);
  return { kind: 'hugetlb', pageSize: bytes(hugetlb, 'hugetlb') };
}

function fileRequest(backing: FileBacking): NativeBacking {
  const given = options<FileBacking>(backing, 'a file backing', ['file', 'offset', 'mode']);
  const { file, offset = 0, mode = 'private' } = given;
  const part = { offset: bytes(offset, 'offset'), shared: oneOf(mode, 'mode', ['private', 'shared']) === 'shared' };
  if (typeof file === 'number') return { kind: 'fd', fd: integer(file, 'file', 0, FD_MAX), ...part };
  return { kind: 'path', path: pathOf(file), ...part };
}

function pathOf(file: unknown): string {
  const path = file instanceof URL ? pathOfUrl(file) : file;
  if (typeof path !== 'string') throw invalid('file', 'a path, a file: URL or a file descriptor', path);
  if (path.includes('\0')) throw invalid('file', 'a path without null bytes', path);
  return path;
}

function pathOfUrl(url: URL): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw new TypevisorError('ERR_INVALID_ARGUMENT', `file must be a file: URL: ${messageOf(cause)}`, { cause });
  }
}

function bufferRequest(backing: BufferBacking, size: number): BackingRequest {
  const { buffer } = options<BufferBacking>(backing, 'a buffer backing', ['buffer']);
  if (!types.isSharedArrayBuffer(buffer)) throw invalid('buffer', 'a SharedArrayBuffer', buffer);
  if (!buffer.growable) throw new TypevisorError('ERR_UNALIGNED', FIXED_LENGTH);
  const { length } = new Uint8Array(buffer); // what it has, whatever was written over `byteLength`
  if (length < size) {
    throw new TypevisorError(
      'ERR_INVALID_ARGUMENT',
      `buffer has ${length} bytes; the slot wants ${size}: grow it first`,
    );
  }
  const own = new Uint8Array(buffer, 0, size);
  return { backing: { kind: 'buffer', bytes: own }, own };
}

function shareRequest(backing: ShareBacking, size: number): BackingRequest {
  const { share, offset = 0 } = options<ShareBacking>(backing, 'a share', ['share', 'offset']);
  const parts = slotParts(share, 'share');
  const from = bytes(offset, 'offset');
  const own = parts.bytes?.subarray(from, from + size);
  return { backing: { kind: 'share', slot: parts.native, offset: from }, own };
}
