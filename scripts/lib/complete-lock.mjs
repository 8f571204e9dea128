// Entries that a package-lock.json lacks: optional dependencies for other platforms, which a registry that lists only
// this platform's packages made npm leave out. `npm ci` refuses such a lockfile. Pure.

const SYSTEMS = ['android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32', 'aix'];
const PROCESSORS = ['arm64', 'arm', 'x64', 'ia32', 'ppc64', 'riscv64', 's390x', 'loong64', 'wasm32', 'mips64el'];

/** The lockfile with the missing entries added, sorted as npm sorts them; and their names. */
export function completeLock(lock) {
  const packages = { ...lock.packages };
  const added = [];
  for (const [at, entry] of Object.entries(lock.packages)) {
    if (at === '') continue; // the project's own are npm's to resolve
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      if (!/^\d/.test(version) || resolves(packages, at, name)) continue;
      const place = `${at.slice(0, at.lastIndexOf('node_modules/'))}node_modules/${name}`;
      packages[place] = platformEntry(name, version, entry);
      added.push(place);
    }
  }
  const sorted = Object.entries(packages).toSorted(([a], [b]) => a.localeCompare(b, 'en'));
  return { lock: { ...lock, packages: Object.fromEntries(sorted) }, added };
}

/** Whether `name`, required by the package at `at`, is found as Node.js looks for it: there, then in each folder above. */
function resolves(packages, at, name) {
  const parts = at.split('/node_modules/');
  for (let depth = parts.length; depth > 0; depth -= 1) {
    if (Object.hasOwn(packages, `${parts.slice(0, depth).join('/node_modules/')}/node_modules/${name}`)) return true;
  }
  return Object.hasOwn(packages, `node_modules/${name}`);
}

/** An entry that npm skips on other platforms. It has no integrity: npm adds it where the package is installed. */
function platformEntry(name, version, { dev }) {
  const words = name.replace(/^@[^/]+\//, '').split(/[-_./]/);
  const os = SYSTEMS.find(word => words.includes(word)) ?? 'none';
  const cpu = PROCESSORS.find(word => words.includes(word));
  const libc = { gnu: 'glibc', musl: 'musl' }[words.find(word => word === 'gnu' || word === 'musl')];
  return {
    version,
    ...(cpu && { cpu: [cpu] }),
    ...(dev && { dev: true }),
    ...(os === 'linux' && libc && { libc: [libc] }),
    optional: true,
    os: [os],
  };
}
