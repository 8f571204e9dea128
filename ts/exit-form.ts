/** Exits as the addon delivers them, in their public form: names instead of numbers, nothing that is absent, frozen. */

import { errnoName } from './errors.ts';
import { type Exit, FAULT_CAUSES, INTERNAL_ERRORS, SYSTEM_EVENTS } from './exit.ts';
import { MSR_REASONS, type MsrReason } from './exit-x86.ts';
import type { NativeExit } from './native.ts';

type Native<Kind> = Extract<NativeExit, { kind: Kind }>;

/** The public form of what the addon delivered. */
export function decode(exit: NativeExit): Exit {
  return Object.freeze(publicForm(exit));
}

function publicForm(exit: NativeExit): Exit {
  switch (exit.kind) {
    case 'io': {
      const { kind, port, size, count, data } = exit;
      return exit.out
        ? { kind, direction: 'out', port, size, count, data }
        : { kind, direction: 'in', port, size, count };
    }
    case 'mmio': {
      const { kind, gpa, size, data } = exit;
      return exit.write ? { kind, direction: 'write', gpa, size, data } : { kind, direction: 'read', gpa, size };
    }
    case 'internal-error':
      return internalError(exit);
    case 'system-event': {
      const { kind, type, flags } = exit;
      const event = oneOf(exit.event, SYSTEM_EVENTS, 'unknown');
      return { kind, event, type, data: Object.freeze(exit.data), ...(flags !== null && { flags }) };
    }
    case 'hlt':
    case 'intr':
    case 'shutdown':
    case 'irq-window-open':
    case 'nmi':
    case 'dirty-ring-full':
    case 'bus-lock':
    case 'ap-reset-hold':
      return { kind: exit.kind };
    case 'run-failed':
      return { kind: exit.kind, errno: exit.errno, errnoName: errnoName(exit.errno) };
    case 'memory-fault':
      return memoryFault(exit);
    case 'unknown': {
      const { kind, reason, bytes, hardwareReason } = exit;
      return { kind, reason, bytes, ...(hardwareReason !== null && { hardwareReason }) };
    }
    case 'hypercall':
    case 'debug':
    case 'debug-arm':
    case 'arm-nisv':
    case 'arm-sea':
      return ofOneArchitecture(exit);
    default:
      return ofX86(exit);
  }
}

function internalError(exit: Native<'internal-error'>): Exit {
  const { kind, suberror, flags, instruction } = exit;
  return {
    kind,
    suberror,
    name: oneOf(exit.name, INTERNAL_ERRORS, 'unknown'),
    data: Object.freeze(exit.data),
    ...(flags !== null && { flags }),
    ...(instruction !== null && { instruction }),
  };
}

function memoryFault(exit: Native<'memory-fault'>): Exit {
  const { kind, gpa, size, flags, errno } = exit;
  const rwx = exit.rwx === null ? undefined : oneOf(exit.rwx, ['read', 'write', 'exec'], undefined);
  return {
    kind,
    gpa,
    size,
    flags,
    access: exit.private ? 'private' : 'shared',
    ...(rwx !== undefined && { rwx }),
    errno,
    errnoName: errnoName(errno),
    cause: oneOf(exit.cause, FAULT_CAUSES, 'unknown'),
  };
}

/** Kinds of aarch64, and those that it shares with x86_64 under another form. */
function ofOneArchitecture(exit: Native<'hypercall' | 'debug' | 'debug-arm' | 'arm-nisv' | 'arm-sea'>): Exit {
  switch (exit.kind) {
    case 'hypercall': {
      const { kind, nr, args, flags } = exit;
      if (args === null) return { kind, arch: 'aarch64', nr, flags };
      return { kind, arch: 'x86_64', nr, args: Object.freeze(args), flags };
    }
    case 'debug': {
      const { kind, exception, pc, dr6, dr7 } = exit;
      const registers = dr6 !== null && dr7 !== null && { dr6, dr7 };
      return { kind, arch: 'x86_64', exception, pc, ...registers };
    }
    case 'debug-arm': {
      const { hsr, far } = exit;
      return { kind: 'debug', arch: 'aarch64', hsr, ...(far !== null && { far }) };
    }
    case 'arm-nisv': {
      const { esrIss, faultIpa } = exit;
      return { kind: exit.wide ? 'arm-ldst64b' : 'arm-nisv', esrIss, faultIpa };
    }
    case 'arm-sea': {
      const { kind, flags, esr, gva, gpa } = exit;
      return { kind, flags, esr, ...(gva !== null && { gva }), ...(gpa !== null && { gpa }) };
    }
    default:
      return exit satisfies never;
  }
}

type X86Kind =
  | 'fail-entry'
  | 'exception'
  | 'set-tpr'
  | 'tpr-access'
  | 'ioapic-eoi'
  | 'hyperv-synic'
  | 'hyperv-hcall'
  | 'hyperv-syndbg'
  | 'hyperv-unknown'
  | 'xen-hcall'
  | 'xen-unknown'
  | 'rdmsr'
  | 'wrmsr'
  | 'notify'
  | 'tdx'
  | 'snp-req-certs';

function ofX86(exit: Native<X86Kind>): Exit {
  switch (exit.kind) {
    case 'hyperv-synic':
      return { ...exit, kind: 'hyperv', type: 'synic' };
    case 'hyperv-hcall':
      return { kind: 'hyperv', type: 'hcall', input: exit.input, params: Object.freeze(exit.params) };
    case 'hyperv-syndbg':
      return { ...exit, kind: 'hyperv', type: 'syndbg' };
    case 'hyperv-unknown':
      return { kind: 'hyperv', type: 'unknown', number: exit.number, bytes: exit.bytes };
    case 'xen-hcall':
      return { ...exit, kind: 'xen', type: 'hcall', params: Object.freeze(exit.params) };
    case 'xen-unknown':
      return { kind: 'xen', type: 'unknown', number: exit.number, bytes: exit.bytes };
    case 'rdmsr':
    case 'wrmsr':
      return { ...exit, reason: oneOf<MsrReason>(exit.reason, MSR_REASONS, 'other') };
    case 'tdx':
      return { ...exit, data: Object.freeze(exit.data) };
    case 'fail-entry':
    case 'exception':
    case 'set-tpr':
    case 'tpr-access':
    case 'ioapic-eoi':
    case 'notify':
    case 'snp-req-certs':
      return { ...exit };
    default:
      return exit satisfies never;
  }
}

/** The name among those that are known. */
function oneOf<Name extends string | undefined>(name: string, known: readonly Name[], other: Name): Name {
  return known.find(candidate => candidate === name) ?? other;
}
