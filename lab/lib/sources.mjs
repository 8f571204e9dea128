// apt's source entries: which of this machine's own are Debian's archive, and entries for other suites of it. Pure.

/** Suites of Debian by code name and by state. */
const DEBIAN_SUITE = /^(bullseye|bookworm|trixie|forky|duke|oldoldstable|oldstable|stable|testing|unstable|sid)$/;
const SECURITY_SUITE = /^(\w+-security|\w+\/updates)$/;

/** Where the kernels of all series are. An old suite may have left a mirror: what is there is used. */
const SUITES = ['bullseye', 'bookworm', 'bookworm-backports', 'trixie', 'trixie-backports'];
const SECURITY_SUITES = ['bullseye-security', 'bookworm-security', 'trixie-security'];

/** The entries of a file of sources: `{ uris, suites, components, signedBy }`, `signedBy` as it stands there. */
export function parseSources(text, isDeb822) {
  return isDeb822 ? parseDeb822(text) : parseOneLine(text);
}

function parseDeb822(text) {
  const stanzas = parseStanzas(text.replaceAll(/^#.*\n?/gm, ''));
  return stanzas
    .filter(fields => words(fields.Types).includes('deb') && fields.Enabled?.toLowerCase() !== 'no')
    .map(fields => ({
      uris: words(fields.URIs),
      suites: words(fields.Suites),
      components: words(fields.Components),
      signedBy: fields['Signed-By'],
    }));
}

function parseOneLine(text) {
  const lines = text.split('\n').map(line => /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line));
  return lines
    .filter(found => found !== null)
    .map(([, options, uri, suite, components]) => ({
      uris: [uri],
      suites: [suite],
      components: words(components),
      signedBy: /(?:^|\s)signed-by=(\S+)/.exec(options ?? '')?.[1]?.replaceAll(',', ' '),
    }));
}

/** Paragraphs of `Field: value`, as apt prints and reads them; a value keeps its lines. */
export function parseStanzas(text) {
  const stanzas = text.split(/\n\s*\n/).map(stanza => {
    const fields = {};
    for (const [, name, value] of stanza.matchAll(/^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)/gm)) fields[name] = value;
    return fields;
  });
  return stanzas.filter(fields => Object.keys(fields).length > 0);
}

const words = text => (text ?? '').split(/\s+/).filter(Boolean);

/**
 * Debian's archive among a machine's entries: `{ main, security }`, either may be undefined. Others too name Debian's
 * suites (a vendor's packages for bookworm), so the likeliest is taken: Debian's keyring, an address that ends in debian.
 */
export function debianEntries(entries) {
  const ours = entries.filter(({ components }) => components.includes('main'));
  const best = (suite, ending) =>
    ours
      .filter(({ suites }) => suites.some(name => suite.test(name)))
      .map(entry => ({ entry, likely: likelihood(entry, ending) }))
      .reduce((a, b) => (b.likely > a.likely ? b : a), { likely: -1 }).entry;
  return { main: best(DEBIAN_SUITE, /\/debian\/?$/), security: best(SECURITY_SUITE, /\/debian-security\/?$/) };
}

function likelihood({ uris, signedBy }, ending) {
  return (/debian-archive/.test(signedBy ?? '') ? 2 : 0) + (uris.some(uri => ending.test(uri)) ? 1 : 0);
}

/** Entries (deb822) for all suites that the lab takes packages from, at the addresses and with the keys of `debianEntries`. */
export function suiteSources({ main, security }, architectures) {
  const stanza = ({ uris, signedBy }, suites) =>
    [
      'Types: deb',
      `URIs: ${uris.join(' ')}`,
      `Suites: ${suites.join(' ')}`,
      'Components: main',
      `Architectures: ${architectures.join(' ')}`,
      'Targets: Packages',
      // A suite that Debian has archived is no longer signed anew; its packages are what they were.
      'Check-Valid-Until: no',
      ...(signedBy === undefined ? [] : [`Signed-By:${/^\s/.test(signedBy) ? '' : ' '}${signedBy}`]),
      '',
    ].join('\n');
  return [stanza(main, SUITES), ...(security ? [stanza(security, SECURITY_SUITES)] : [])].join('\n');
}
