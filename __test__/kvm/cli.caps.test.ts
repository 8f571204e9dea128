import { Vm } from '../../ts/index.ts';
import { typevisor } from '../helpers/cli.ts';
import { needs } from '../helpers/needs.ts';

const test = needs();

test('typevisor caps: what is present here, one line each', async t => {
  using vm = Vm.create();
  const present = [...vm.capabilities].filter(({ value }) => value !== 0);
  const { code, stdout, stderr } = await typevisor(['caps']);
  t.deepEqual([code, stderr], [0, '']);
  const [head = '', ...lines] = stdout.trimEnd().split('\n');
  t.regex(head, /^name +no\. +\/dev\/kvm +VM +since +meaning$/u);
  for (const { name, number, value, meaning } of present) {
    const line = lines.find(text => text.startsWith(`${name} `)) ?? '';
    t.regex(line, new RegExp(`^${name} +${number} +\\d+ +${value} +\\S`, 'u'));
    t.true(line.endsWith(`  ${meaning}`), name);
  }
});

test('typevisor caps --all --json: every capability, with both answers', async t => {
  using vm = Vm.create();
  const { code, stdout } = await typevisor(['caps', '--all', '--json']);
  t.is(code, 0);
  const { schemaVersion, capabilities } = JSON.parse(stdout);
  t.is(schemaVersion, 1);
  const expected = [...vm.capabilities];
  t.is(capabilities.length, expected.length);
  for (const [index, { value, ...rest }] of expected.entries()) {
    const { kvm, ...answer } = capabilities[index];
    t.deepEqual(answer, { ...rest, vm: value });
    t.is(typeof kvm, 'number');
  }
});

test("typevisor caps --vm: the VM's answer alone, and nothing that only /dev/kvm has", async t => {
  const { stdout } = await typevisor(['caps', '--vm', '--json']);
  const { capabilities } = JSON.parse(stdout);
  t.true(capabilities.length > 10);
  for (const capability of capabilities) {
    t.false('kvm' in capability);
    t.true(capability.vm !== 0);
  }
});
