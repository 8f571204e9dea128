import test, { type ExecutionContext } from 'ava';
import { fixture } from '../helpers/child.ts';
import { installation, PACKAGE, packageFiles } from '../helpers/installed.ts';

/** What the fixture prints. */
interface Outcome {
  imported: boolean;
  code: string;
  error: string;
  cause: string;
  doctor: { usable: boolean; checks: { id: string; status: string; detail: string }[] };
}

/** Loads from an installation with `files`; every failure is `ERR_LOAD` with a message, and the doctor tells the same. */
const fails = test.macro(
  async (
    t: ExecutionContext,
    given: { files?: Record<string, string>; env?: Record<string, string> },
    message: RegExp,
    cause?: RegExp,
  ) => {
    using installed = installation(given.files);
    const ended = await fixture('load', { args: [installed.folder], env: { TYPEVISOR_NATIVE_PATH: '', ...given.env } });
    t.is(ended.code, 0, ended.stderr);
    const outcome: Outcome = JSON.parse(ended.stdout);
    t.true(outcome.imported);
    t.is(outcome.code, 'ERR_LOAD');
    t.regex(outcome.error, message);
    if (cause !== undefined) t.regex(outcome.cause, cause);
    t.false(outcome.doctor.usable);
    t.like(outcome.doctor.checks, [
      { id: 'addon', status: 'failed', detail: outcome.error.replace('TypevisorError: ', '') },
    ]);
  },
);

test(
  'loader: no addon anywhere says what to install',
  fails,
  {},
  new RegExp(`npm install ${PACKAGE}@0.1.0`, 'u'),
  /AggregateError/u,
);

test(
  'loader: a package of another version says which two go together',
  fails,
  { files: packageFiles('9.9.9', 'module.exports = {}') },
  new RegExp(`${PACKAGE} is 9.9.9 but typevisor is 0.1.0. Run: npm install typevisor@0.1.0 ${PACKAGE}@0.1.0`, 'u'),
);

test(
  'loader: a package that cannot be loaded keeps the cause',
  fails,
  { files: packageFiles('0.1.0', 'throw new Error("invalid ELF header")') },
  /cannot be loaded on linux-\w+, Node\.js v[\d.]+, glibc .*: invalid ELF header/u,
  /invalid ELF header/u,
);

test(
  'loader: a module that is no addon of ours is refused',
  fails,
  { files: packageFiles('0.1.0', 'module.exports = { attach: 1 }') },
  /is not the addon of Typevisor 0\.1\.0/u,
);

test(
  'loader: TYPEVISOR_NATIVE_PATH that names nothing is told, and no other addon taken',
  fails,
  { files: packageFiles('0.1.0', 'throw new Error("taken")'), env: { TYPEVISOR_NATIVE_PATH: '/no/such/addon.node' } },
  /\/no\/such\/addon\.node \(TYPEVISOR_NATIVE_PATH names it\) cannot be loaded/u,
  /MODULE_NOT_FOUND/u,
);

test(
  'loader: a build of the checkout goes before the package',
  fails,
  {
    files: {
      ...packageFiles('0.1.0', 'throw new Error("the package")'),
      [`native/${PACKAGE.replace('typevisor-', 'typevisor.')}.node`]: 'no ELF file',
    },
  },
  /built in this checkout/u,
  /ERR_DLOPEN_FAILED/u,
);
