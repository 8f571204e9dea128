// The cases of a selftest, from C, and our port beside it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PORTS, caseLines, readCases } from '../selftests/cases.mjs';
import { judge, reportLines } from '../selftests/compare.mjs';

const SOURCE = `
#ifdef __x86_64__
static void test_of_x86(bool quirk)
{
}
#endif
static void test_helper(void) {}
/* static void test_in_comment(void) */
static int test_everywhere(void)
{
	test_helper();
}
static void test_not_called(void) {}

int main(int argc, char *argv[])
{
#ifdef __x86_64__
	int i;

	for (i = 0; i < 2; i++)
		test_of_x86(!!i);	// test_helper(
#endif
	test_everywhere();
	test_of_x86(false);
	test_of_a_library();
	return 0;
}
`;

test('a case is a static function that main calls, with its processor', () => {
  assert.deepEqual(caseLines(SOURCE), ['test_of_x86 x86_64', 'test_everywhere']);
});

test('a condition that is not understood is an error, and so is a source without main', () => {
  assert.throws(() => caseLines(SOURCE.replace('\tint i;', '#else')), /#else is not understood/);
  assert.throws(() => caseLines(SOURCE.replace('#ifdef __x86_64__\n\tint', '#if 0\n\tint')), /#if 0 is not understood/);
  assert.throws(() => caseLines('static void test_a(void) {}'), /no main/);
});

test('each port has a list', () => {
  for (const name of Object.keys(PORTS)) assert.ok(readCases(name).length > 0, name);
});

const tally = { passed: 5, failed: 0, failures: [], skips: [], finished: true };
const skip = reason => ({ ...tally, skips: [{ title: 'a', reason }] });

test('our port passes where it ran whole; what the processor lacks is not missing', () => {
  assert.deepEqual(judge(tally), { verdict: 'pass', passed: 5, said: '' });
  assert.equal(judge(skip('needs x86_64')).verdict, 'pass');
  assert.deepEqual(judge(skip('needs speed')), { verdict: 'partly', passed: 5, said: 'a (needs speed)' });
  assert.equal(judge({ ...skip('needs KVM'), passed: 0 }).verdict, 'skip');
  assert.equal(judge({ ...tally, failed: 1, failures: ['b'] }).said, 'b');
  assert.deepEqual(judge({ ...tally, problem: 'it died' }), { verdict: 'fail', passed: 5, said: 'it died' });
  assert.equal(judge({ ...tally, passed: 0 }).verdict, 'skip');
});

const result = (machine, c, ours) => ({
  machine,
  c: { verdict: c, said: 'why' },
  ours: { verdict: ours, passed: 1, said: 'because' },
});

test('a machine differs where C passes and we do not', () => {
  const text = reportLines([
    result('host', 'pass', 'partly'),
    result('6.1', 'fail', 'pass'),
    result('lab', 'pass', 'pass'),
  ]);
  assert.deepEqual(text.join('\n').split('\n'), [
    'machine  C     ours    cases',
    'host     pass  partly  1      differs',
    '6.1      fail  pass    1',
    'lab      pass  pass    1',
    '',
    'host: ours: partly: because',
    '6.1: C: fail: why',
  ]);
});
