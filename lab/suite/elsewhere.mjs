/** Why a file of tests is left out of a machine on purpose: said inside by run.mjs, known outside to scripts/test.mjs. */
export const ELSEWHERE = 'says nothing about a kernel, and runs elsewhere';
