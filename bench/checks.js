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
/** Small requests and large ones take different ways through a server. */
const REQUEST_BYTES = [4096, 262_144];

/**
 * Reads an image from the server and writes another into it, with nbdcopy. Throws on the first wrong byte.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {'unix' | 'tcp'} transport
 * @param {number} sizeBytes
 */
export async function checkBytes(owned, peer, transport, sizeBytes) {
  const [image, pattern, copy] = ['checked', 'pattern', 'copy'].map((name) => join(owned.folder, `${name}.raw`));
  if (image === undefined || pattern === undefined || copy === undefined) return;
  makeImage(image, sizeBytes);
  const server = await startServer(owned, peer, transport, image);
  try {
    for (const bytes of REQUEST_BYTES) {
      const how = [`--request-size=${bytes}`];
      await succeed(owned, 'nbdcopy', [...how, server.uri, copy], { limitMs: LIMIT_MS });
      await mustBeEqual(copy, image, `${peer.name} over ${transport} gave other bytes than the image has`);
      makeImage(pattern, sizeBytes);
      await succeed(owned, 'nbdcopy', [...how, '--flush', pattern, server.uri], { limitMs: LIMIT_MS });
      await mustBeEqual(image, pattern, `${peer.name} over ${transport} wrote other bytes than it was given`);
    }
  } finally {
    await server.stop();
    for (const path of [image, pattern, copy]) rmSync(path, { force: true });
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
