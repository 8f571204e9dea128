// One file from a Debian mirror, whose size and SHA-256 apt's signed lists gave. apt fetches it (proxies, mirrors and
// passwords are its business) and continues what is there where the server dates its files. For those that do not, the
// rest is asked for here: whoever sends it, the hash decides.
import { closeSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { AS_WE_ARE } from '../../scripts/lib/debs.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { sha256Of } from './store.mjs';

const HELPER = '/usr/lib/apt/apt-helper';
/** A server that is silent for longer is left to apt, which has limits and retries of its own. */
const SILENCE_MS = 30_000;

/** A file that the lists name and the server does not have. */
export class NotThere extends Error {}

/** Downloads `{ uri, name, size, sha256 }` to `to` and gives that path. A partial file there is continued. */
export async function download({ uri, name, size, sha256 }, to) {
  const isWhole = async () => sizeOf(to) === size && (await sha256Of(to)) === sha256;
  if (await isWhole()) return to;
  if (sizeOf(to) >= size) rmSync(to); // not the file that was asked for
  if (sizeOf(to) > 0) {
    await continueAt(uri, to, size);
    if (await isWhole()) return to;
    if (sizeOf(to) >= size) rmSync(to);
  }
  await fetchByApt({ uri, name, sha256 }, to);
  if (await isWhole()) return to;
  rmSync(to, { force: true });
  throw new Stop(`lab: ${name} is not what Debian's signed lists say (size or hash); run the command again`);
}

const sizeOf = file => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/** Appends what is missing, if the server gives just that. Where it does not come, apt is next and says why. */
async function continueAt(uri, to, size) {
  const begin = sizeOf(to);
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(new Error('silence')), SILENCE_MS);
  const file = openSync(to, 'a');
  try {
    const response = await fetch(uri, { headers: { range: `bytes=${begin}-` }, signal: silence.signal });
    const isRest = response.headers.get('content-range')?.startsWith(`bytes ${begin}-`);
    if (response.status !== 206 || !isRest) return await response.body?.cancel();
    say(`lab: going on at ${sizeText(begin)} of ${sizeText(size)}`);
    for await (const chunk of response.body) {
      timer.refresh();
      writeSync(file, chunk);
    }
  } catch (error) {
    say(`lab: the server did not go on at ${sizeText(begin)} (${error.cause?.code ?? error.message})`);
  } finally {
    clearTimeout(timer);
    closeSync(file);
  }
}

async function fetchByApt({ uri, name, sha256 }, to) {
  const args = [...AS_WE_ARE, 'download-file', uri, to, `SHA256:${sha256}`];
  const { status, tail } = await run(HELPER, args, { onLine: () => {} });
  if (status === 0) return;
  const why = tail.filter(line => /^[EW]:/.test(line));
  if (why.some(line => /\b404\b/.test(line))) throw new NotThere(`${name}: the server does not have it`);
  rmSync(`${to}.FAILED`, { force: true });
  throw new Stop([`lab: ${name} could not be fetched: the lab needs the registry once.`, ...why].join('\n'));
}

/** `70 MB`, `340 kB`. */
export function sizeText(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${Math.round(bytes / 1e6)} MB`;
}
