// One set-up at a time in a clone. An abstract Unix socket is the lock: the kernel frees it when its owner dies.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Runs `body` while holding the lock for `name`; `onWait` is called once if another process has it. */
export async function withLock(name, onWait, body) {
  const address = `\0typevisor-${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
  let lock;
  for (let told = false; !(lock = await tryLock(address)); told = true) {
    if (!told) onWait();
    await ended(address);
  }
  try {
    return await body();
  } finally {
    lock.release();
  }
}

async function tryLock(address) {
  const waiting = new Set();
  const server = createServer(socket => waiting.add(socket.unref().on('error', () => {})));
  server.listen(address).unref();
  try {
    await once(server, 'listening');
  } catch (error) {
    if (error.code === 'EADDRINUSE') return undefined;
    throw error;
  }
  const release = () => {
    server.close();
    for (const socket of waiting) socket.destroy();
  };
  return { release };
}

/** Waits until the process that holds the lock lets go: it closes the connection then, or refuses one. */
function ended(address) {
  const socket = connect(address).resume();
  socket.on('error', () => {}); // 'close' follows
  return new Promise(resolve => socket.once('close', resolve));
}
