// A read-only npm registry on 127.0.0.1 that serves a few tarballs: what a user's `npm install` sees, without publishing.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename } from 'node:path';
import { output } from './run.mjs';

/** Serves `tarballs` (paths); gives `{ url, close }`. */
export async function serveRegistry(tarballs) {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${server.address().port}`;
  const packages = new Map(tarballs.map(file => describe(file, url)));
  const files = new Map(tarballs.map(file => [`/-/${basename(file)}`, file]));
  server.on('request', (request, response) => {
    const path = decodeURIComponent(request.url);
    const file = files.get(path);
    if (file) return response.end(readFileSync(file));
    const found = packages.get(path.slice(1));
    response.writeHead(found ? 200 : 404, { 'content-type': 'application/json' });
    return response.end(JSON.stringify(found ?? { error: 'not found' }));
  });
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url, close };
}

/** The registry's document on one tarball, under its package's name. */
function describe(file, url) {
  const manifest = JSON.parse(output('tar', ['-xOzf', file, 'package/package.json']));
  const integrity = `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`;
  const { name, version } = manifest;
  const dist = { tarball: `${url}/-/${basename(file)}`, integrity };
  return [name, { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } } }];
}
