import test from 'ava';
import { path, program } from '../helpers/child.ts';

test('typevisor: can be loaded by require()', async t => {
  const { code, stdout } = await program(path('__test__/fixtures/required.cjs'));
  t.deepEqual([code, stdout], [0, 'true ERR_INVALID_ARGUMENT\n']);
});
