// A private view on other suites of Debian: lists, archives and status of its own, so that nothing is installed and the
// machine's own lists stay as they are. Where Debian is, and with which key, the machine's own sources say.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { AS_WE_ARE, architecture, option, privateView, unpack } from '../../scripts/lib/debs.mjs';
import { withLock } from '../../scripts/lib/lock.mjs';
import { run } from '../../scripts/lib/run.mjs';
import { Stop, say } from '../../scripts/lib/say.mjs';
import { hasApt } from '../../scripts/lib/system.mjs';
import { NotThere, download, sizeText } from './download.mjs';
import { debianEntries, parseSources, parseStanzas, suiteSources } from './sources.mjs';
import { storeDir } from './store.mjs';

/** The architectures of the lab's machines, by Debian's names. */
const ARCHITECTURES = ['amd64', 'arm64'];
/** Debian's name for a Rust architecture. */
export const debianArch = arch => ({ x86_64: 'amd64', aarch64: 'arm64' })[arch];
/** Lists that are younger are not fetched again: an interrupted run goes on with those it had. */
const FRESH_MS = 60 * 60_000;

/** Runs `body` with the view (`Suites`), its lists fresh; one process at a time. */
export async function withSuites(body) {
  return alone(async () => {
    const suites = new Suites(join(storeDir(), 'apt'));
    await suites.refresh();
    return body(suites);
  });
}

/** Deletes the lists (250 MB): everything made from them is in place. */
export async function forgetSuites() {
  await alone(() => rmSync(join(storeDir(), 'apt'), { recursive: true, force: true }));
}

function alone(body) {
  return withLock(`lab-suites ${storeDir()}`, sayWaiting, body);
}

function sayWaiting() {
  say('lab: waiting for another process that fetches packages');
}

/** Fetches the newest version of one package (`name` or `name:arch`) over all suites and unpacks it into `root`; gives `name_version`. */
export async function fetchSuitePackage(name, root, tell = line => say(`lab: ${line}`)) {
  const spec = name.includes(':') ? name : `${name}:${architecture()}`;
  const [unpacked] = await fetchAndUnpack([spec], root, tell);
  return unpacked;
}

/** Fetches packages (`name:arch`, `name:arch=version`) and unpacks them into `root`; gives them as `name_version`. */
export async function fetchAndUnpack(specs, root, tell) {
  const files = await withSuites(async suites => {
    const found = await suites.locate(specs);
    if (!found) throw new Stop(`lab: Debian's suites do not have ${specs.join(', ')}`);
    try {
      return await suites.download(found, tell);
    } catch (error) {
      if (error instanceof NotThere)
        throw new Stop(`lab: ${error.message}: Debian's lists and its files differ; try later`);
      throw error;
    }
  });
  mkdirSync(root, { recursive: true });
  return unpack(files, root);
}

export class Suites {
  #folder;
  #options;

  constructor(folder) {
    this.#folder = folder;
    const status = join(folder, 'status');
    this.#options = [
      ...AS_WE_ARE,
      ...privateView(folder, ARCHITECTURES),
      ...option('Dir::State::status', status),
      ...option('Dir::Cache::pkgcache', join(folder, 'pkgcache.bin')),
      ...option('Dir::Etc::sourcelist', this.#sources),
      ...['sourceparts', 'preferences', 'preferencesparts'].flatMap(name => option(`Dir::Etc::${name}`, '/dev/null')),
      ...option('APT::Default-Release', ''),
    ];
    // Nothing is installed in this view. A newer file would make apt read all lists again.
    if (!existsSync(status)) writeFileSync(status, '');
  }

  get #sources() {
    return join(this.#folder, 'debian.sources');
  }

  /** Fetches the lists, unless they are fresh; a `Stop` where there are none then. */
  async refresh() {
    const stamp = join(this.#folder, 'refreshed');
    if (Date.now() - (statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0) < FRESH_MS) return;
    const entries = debianEntries(machineEntries());
    if (!entries.main)
      throw new Stop(
        "lab: its kernels are Debian's, and no apt source of this machine names a Debian suite (bookworm, trixie, …). Use a Debian machine or container.",
      );
    writeFileSync(this.#sources, suiteSources(entries, ARCHITECTURES));
    say("lab: fetching the package lists of Debian's suites (70 MB)");
    const { status, tail } = await run('apt-get', [...this.#options, 'update', '-q'], { onLine: () => {} });
    const why = tail
      .filter(line => /^[EW]:/.test(line))
      .slice(0, 3)
      .join('\n'); // the same for each list
    const lists = readdirSync(join(this.#folder, 'lists')).filter(name => name.includes('_Packages'));
    if (lists.length === 0)
      throw new Stop(`lab: Debian's package lists could not be fetched: the lab needs the registry once.\n${why}`);
    if (status === 0 && why === '') writeFileSync(stamp, '');
    else say(`lab: not all package lists could be fetched; going on with those that are here.\n${why}`);
  }

  /** The names of all packages that begin with `prefix`, of every architecture. */
  async names(prefix) {
    const { lines } = await this.#apt('apt-cache', ['pkgnames', prefix]);
    return lines.filter(Boolean);
  }

  /** What the lists say of packages (`name:arch`), all versions; those that they do not have are left out. */
  async show(specs) {
    if (specs.length === 0) return [];
    const { lines } = await this.#apt('apt-cache', ['show', ...specs]);
    return parseStanzas(lines.join('\n'));
  }

  /** Where the packages' files are: `{ uri, name, size, sha256 }` each; undefined if the lists lack one of them. */
  async locate(specs) {
    const { status, lines } = await this.#apt('apt-get', ['download', '--print-uris', ...specs]);
    const found = parseUris(lines);
    return status === 0 && found.length === specs.length ? found : undefined;
  }

  /** Downloads located files, resuming what an interrupted run left; gives their paths. Throws `NotThere` for a 404. */
  async download(located, tell) {
    const folder = join(storeDir(), 'downloads');
    mkdirSync(folder, { recursive: true });
    const files = [];
    for (const file of located) {
      tell(`fetching ${file.name} (${sizeText(file.size)})`);
      files.push(await download(file, join(folder, file.name)));
    }
    return files;
  }

  /** Runs an apt command in the view: `{ status, lines }` of its output. */
  async #apt(command, args) {
    const lines = [];
    const onLine = (line, stream) => stream === 'stdout' && lines.push(line);
    const { status } = await run(command, [...this.#options, ...args], { onLine });
    return { status, lines };
  }
}

/** The machine's own source entries. */
export function machineEntries(folder = '/etc/apt') {
  if (folder === '/etc/apt' && !hasApt())
    throw new Stop("lab: its kernels are Debian's, and this machine has no apt. Use a Debian machine or container.");
  const parts = join(folder, 'sources.list.d');
  const more = existsSync(parts) ? readdirSync(parts).toSorted() : [];
  const files = [join(folder, 'sources.list'), ...more.map(name => join(parts, name))];
  return files
    .filter(file => /\.(list|sources)$/.test(file) && existsSync(file))
    .flatMap(file => parseSources(readFileSync(file, 'utf8'), file.endsWith('.sources')));
}

/** `'URI' NAME SIZE SHA256:…`, as `apt-get --print-uris` writes it. */
export function parseUris(lines) {
  return lines
    .map(line => /^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$/.exec(line.trim()))
    .filter(found => found !== null)
    .map(([, uri, name, size, sha256]) => ({ uri, name: basename(name), size: Number(size), sha256 }));
}
