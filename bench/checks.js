// A speed counts only for a server whose bytes are right: what it gives and what it takes is compared by sha256.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeImage, sha256 } from './image.js';
import { succeed } from './programs.js';
import { startServer } from './server.js';

/**
 * @typedef {import('./owned.js').Owned} Owned
 * @typedef {import('./peers.js').Peer} Peer
 */

const LIMIT_MS = 120_000;
/** Small requests and large ones take different ways through a server; small ones are slow in nbdcopy. */
const PASSES = [
  { requestBytes: 4096, part: 1 / 16 },
  { requestBytes: 262_144, part: 1 },
];

/**
 * Reads an image from the server and writes another into it, with nbdcopy. Throws on the first wrong byte.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {'unix' | 'tcp'} transport
 * @param {number} sizeBytes
 */
export async function checkBytes(owned, peer, transport, sizeBytes) {
  const file = (/** @type {string} */ name) => join(owned.folder, `${name}.raw`);
  const [image, pattern, copy] = [file('checked'), file('pattern'), file('copy')];
  for (const { requestBytes, part } of PASSES) {
    makeImage(image, sizeBytes * part);
    makeImage(pattern, sizeBytes * part);
    const how = [`--request-size=${requestBytes}`];
    const server = await startServer(owned, peer, transport, image);
    try {
      await succeed(owned, 'nbdcopy', [...how, server.uri, copy], { limitMs: LIMIT_MS });
      await mustBeEqual(copy, image, `${peer.name} over ${transport} gave other bytes than the image has`);
      await succeed(owned, 'nbdcopy', [...how, '--flush', pattern, server.uri], { limitMs: LIMIT_MS });
      await mustBeEqual(image, pattern, `${peer.name} over ${transport} wrote other bytes than it was given`);
    } finally {
      await server.stop();
      for (const path of [image, pattern, copy]) rmSync(path, { force: true });
    }
  }
}

/**
 * @param {string} path
 * @param {string} expected path of a file
 * @param {string} otherwise
 */
async function mustBeEqual(path, expected, otherwise) {
  if ((await sha256(path)) !== (await sha256(expected))) throw new Error(otherwise);
}
