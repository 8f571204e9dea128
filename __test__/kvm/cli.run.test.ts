import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { path } from '../helpers/child.ts';
import { typevisor } from '../helpers/cli.ts';
import { guestFiles } from '../helpers/guest-file.ts';
import { x86 } from '../helpers/needs.ts';

const file = guestFiles();

/** `mov dx, 0x3f8; mov al, 'H'; out dx, al; mov al, 'i'; out dx, al`, in any mode but real with its 32-bit operands. */
const PRINT = [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x48, 0xee, 0xb0, 0x69, 0xee];
const hi = file(0xba, 0xf8, 0x03, 0xb0, 0x48, 0xee, 0xb0, 0x69, 0xee, 0xf4); // the same in real mode, and hlt
const spin = file(0xeb, 0xfe); // jmp $

/** `mov al, code; out 0xf4, al; jmp $` */
const exits = (code: number): number[] => [0xb0, code, 0xe6, 0xf4, 0xeb, 0xfe];

x86('typevisor run: the console is on stdout, and hlt is 0', async t => {
  const { code, stdout, stderr } = await typevisor(['run', '--flat', hi]);
  t.deepEqual([code, stdout, stderr], [0, 'Hi', '']);
});

x86('typevisor run --json: the console is on stderr, and the report on stdout', async t => {
  const { code, stdout, stderr } = await typevisor(['run', '--flat', '--json', hi]);
  t.deepEqual([code, stderr], [0, 'Hi']);
  const { seconds, ...report } = JSON.parse(stdout);
  t.true(seconds >= 0);
  t.deepEqual(report, {
    schemaVersion: 1,
    file: hi,
    kind: 'flat',
    outcome: 'halted',
    guestExitCode: 0,
    exitCode: 0,
  });
});

x86('typevisor run --console: at another port', async t => {
  const guest = file(0xb0, 0x2e, 0xe6, 0x50, 0xf4); // mov al, '.'; out 0x50, al; hlt
  const { stdout } = await typevisor(['run', '--flat', '--console', '0x50', guest]);
  t.is(stdout, '.');
});

for (const [mode, ...flags] of [['real'], ['protected'], ['long'], ['protected', '--user'], ['long', '--user']]) {
  x86(`typevisor run --mode ${[mode, ...flags].join(' ')}: prints, and ends by the exit port`, async t => {
    const guest = file(...(mode === 'real' ? PRINT.slice(1) : PRINT), ...exits(7));
    const { code, stdout, stderr } = await typevisor(['run', '--flat', '--mode', String(mode), ...flags, guest]);
    t.deepEqual([code, stdout, stderr], [7, 'Hi', '']);
  });
}

x86('typevisor run --load --entry: elsewhere, with a stack that works', async t => {
  const guest = file(0xf4, 0xe8, 0x01, 0x00, 0xf4, 0xb0, 0x09, 0xe6, 0xf4, 0xc3); // hlt; call next; hlt; next: …
  const { code } = await typevisor(['run', '--flat', '--load', '0x7c00', '--entry', '0x7c01', guest]);
  t.is(code, 9);
});

x86('typevisor run --memory: reads beyond it give ones', async t => {
  // mov eax, [0x20000]; out 0xf4, eax
  const guest = file(0xa1, 0x00, 0x00, 0x02, 0x00, 0xe7, 0xf4);
  const run = async (size: string) => {
    const { code, stdout } = await typevisor([
      'run',
      '--flat',
      '--json',
      '--mode',
      'protected',
      '--memory',
      size,
      guest,
    ]);
    return [code, JSON.parse(stdout).guestExitCode];
  };
  t.deepEqual(await run('128K'), [123, 0xffff_ffff]);
  t.deepEqual(await run('0x21000'), [0, 0]);
});

for (const [code, expected] of [
  [0, 0],
  [1, 1],
  [123, 123],
  [124, 123],
  [255, 123],
] as const) {
  x86(`typevisor run: the guest's exit code ${code} is ${expected}, and whole in --json`, async t => {
    const ended = await typevisor(['run', '--flat', '--json', file(...exits(code))]);
    t.is(ended.code, expected);
    t.like(JSON.parse(ended.stdout), { outcome: 'exited', guestExitCode: code, exitCode: expected });
  });
}

x86('typevisor run --exit-port: another one; the usual one is then nothing', async t => {
  const guest = file(...exits(5).slice(0, 4), 0xb0, 0x06, 0xe6, 0x99); // out 0xf4, 5; mov al, 6; out 0x99, al
  const { code } = await typevisor(['run', '--flat', '--exit-port', '0x99', guest]);
  t.is(code, 6);
});

x86('typevisor run: a guest that stops otherwise is 125, with the exit and the registers', async t => {
  const guest = file(0xb8, 0x2a, 0x00, 0x00, 0x00, 0x0f, 0x0b); // mov eax, 42; ud2, and nobody handles it
  const args = ['run', '--flat', '--mode', 'long', '--user', guest];
  const [text, json] = await Promise.all([typevisor(args), typevisor([...args, '--json'])]);
  t.deepEqual([text.code, text.stdout, json.code], [125, '', 125]);
  t.regex(text.stderr, /^typevisor: the guest stopped with the exit \{"kind":"shutdown"\}\n +rax 0{14}(?:2a|00) /u);
  t.true(text.stderr.split('\n').every(line => line.length <= 80));
  const report = JSON.parse(json.stdout);
  t.like(report, { outcome: 'stopped', guestExitCode: null, exitCode: 125, exit: { kind: 'shutdown' } });
  // With SVM nothing is defined after a shutdown, and KVM resets the vCPU (shutdown_interception in svm.c).
  const asReset = report.registers.rip === '0xfff0';
  t.deepEqual([report.registers.rax, report.registers.cs.selector & 3], asReset ? ['0x0', 0] : ['0x2a', 3]);
});

x86('typevisor run --timeout: time that is up is 124; what was printed before is there', async t => {
  const guest = file(...PRINT.slice(1), 0xeb, 0xfe);
  const { code, stdout, stderr } = await typevisor(['run', '--flat', '--timeout', '0.3', guest]);
  t.deepEqual([code, stdout], [124, 'Hi']);
  t.regex(stderr, /^typevisor: the guest was stopped after [\d.]+ s \(--timeout\)\n$/u);
});

x86('typevisor run --timeout --json: has no exit code of the guest', async t => {
  const { code, stdout } = await typevisor(['run', '--flat', '--timeout', '0.3', '--json', spin]);
  t.is(code, 124);
  t.like(JSON.parse(stdout), { outcome: 'timeout', guestExitCode: null, exitCode: 124 });
});

x86('typevisor run --stats: exits by kind on stderr, as numbers in --json', async t => {
  const guest = file(0xe4, 0x60, 0xe6, 0x61, 0xf4); // in al, 0x60; out 0x61, al; hlt
  const [text, json] = await Promise.all([
    typevisor(['run', '--flat', '--stats', guest]),
    typevisor(['run', '--flat', '--stats', '--json', guest]),
  ]);
  t.is(text.stdout, '');
  t.regex(text.stderr, /^exit +count +in guest +in handler\nio +2 +[\d.]+ ms .*\nhlt +1 .*\nall +3 .*\n$/u);
  t.is(json.stderr, '');
  const { exits: counts } = JSON.parse(json.stdout);
  t.deepEqual([counts.io.count, counts.hlt.count], [2, 1]);
  for (const { guestMs, handlerMs } of [counts.io, counts.hlt]) t.true(guestMs >= 0 && handlerMs >= 0);
});

for (const [signal, expected] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  x86(`typevisor run: ${signal} is ${expected}`, async t => {
    const guest = file(...PRINT.slice(1), 0xeb, 0xfe);
    const ended = await typevisor(['run', '--flat', guest], {
      onStdout: (soFar, kill) => void (soFar === 'Hi' && kill(signal)),
    });
    t.deepEqual([ended.code, ended.signal, ended.stdout], [expected, null, 'Hi']);
    t.is(ended.stderr, `typevisor: interrupted by ${signal}\n`);
  });
}

/** `mov dx, 0x3f8; next: out dx, al; jmp next` */
const endless = (): string => file(0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfd);

x86('typevisor run: a reader of the console that goes is a quiet end', async t => {
  const { code, stdout, stderr } = await shell(`{ $TYPEVISOR run --flat ${endless()}; echo $? >&2; } | head -c 3`);
  t.deepEqual([code, stdout.length, stderr], [0, 3, '0\n']);
});

x86('typevisor run: SIGTERM ends it though nobody reads its console', async t => {
  const child = spawn(process.execPath, [path('dist/cli/main.js'), 'run', '--flat', endless()], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'readable'); // and nothing is read: buffers fill on both sides
  child.kill('SIGTERM');
  t.deepEqual(await once(child, 'exit'), [143, null]);
  child.stdout.destroy();
});

async function shell(script: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const env = { ...process.env, TYPEVISOR: `${process.execPath} ${path('dist/cli/main.js')}` };
  const child = spawn('sh', ['-c', script], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => void (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (stderr += text));
  await once(child, 'close');
  return { code: child.exitCode, stdout, stderr };
}

x86('typevisor run: what has no end is refused, and not read', async t => {
  const { code, stderr } = await typevisor(['run', '--flat', '/dev/zero', '--timeout', '1']);
  t.is(code, 126);
  t.regex(stderr, /\/dev\/zero is no regular file/u);
});
