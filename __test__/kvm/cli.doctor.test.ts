import { doctor } from '../../ts/index.ts';
import { typevisor } from '../helpers/cli.ts';
import { needs } from '../helpers/needs.ts';
import { throwsCode, wrong } from '../helpers/throws.ts';

const test = needs();

test('doctor: where KVM works it says so, in frozen words of a closed set', t => {
  const report = doctor();
  t.true(report.usable);
  for (const { id, title, status, detail } of report.checks) {
    t.true(['ok', 'missing', 'limited', 'failed'].includes(status), `${id}: ${status}`);
    t.true(title !== '' && detail !== '', id);
  }
  t.true([report, report.facts, report.checks, ...report.facts, ...report.checks].every(part => Object.isFrozen(part)));
});

test('doctor: of a device that is not there it says what to do', t => {
  const report = doctor('/dev/no-such-kvm');
  t.false(report.usable);
  t.truthy(report.checks.find(({ status }) => status !== 'ok')?.remedy);
});

test('doctor: a path that is no string is ERR_INVALID_ARGUMENT', t => {
  throwsCode(t, 'ERR_INVALID_ARGUMENT', () => doctor(wrong(1)));
});

test('typevisor doctor: is 0, in both forms', async t => {
  const [text, json] = await Promise.all([typevisor(['doctor']), typevisor(['doctor', '--json'])]);
  t.deepEqual([text.code, json.code], [0, 0]);
  t.regex(text.stdout, /Guests can run here\.\n$/u);
  t.like(JSON.parse(json.stdout), { schemaVersion: 1, usable: true });
});
