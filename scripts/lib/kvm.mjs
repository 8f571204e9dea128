// Is KVM to be had here? The question that tests and claims ask first.
import { closeSync, constants, openSync } from 'node:fs';

/** Why /dev/kvm cannot be used; undefined where it can. */
export function kvmProblem(path = '/dev/kvm') {
  try {
    closeSync(openSync(path, constants.O_RDWR));
    return undefined;
  } catch (error) {
    if (error.code === 'ENOENT') return `${path} does not exist`;
    if (error.code === 'EACCES' || error.code === 'EPERM') return `${path}: permission denied`;
    return `${path}: ${error.code}`;
  }
}
