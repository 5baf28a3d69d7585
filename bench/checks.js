// A speed counts only for a server whose bytes are right: what it gives and what it takes is compared by sha256.
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { drop, fullOf, makeImage, qcow2Image, sha256 } from './image.js';
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
  await check(owned, peer, sizeBytes, {
    words: `over ${transport}`,
    start: (image) => startServer(owned, peer, transport, image),
    rawOf: (image) => Promise.resolve(image),
  });
}

/**
 * The same past the page cache, over a unix socket.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {number} sizeBytes
 */
export async function checkDirectBytes(owned, peer, sizeBytes) {
  await check(owned, peer, sizeBytes, {
    words: 'past the page cache',
    start: (image) => startServer(owned, peer, 'unix', image, { format: 'raw', direct: true }),
    rawOf: (image) => Promise.resolve(image),
  });
}

/**
 * The same from a disk: nothing of the image is in the page cache when the server begins.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {number} sizeBytes
 */
export async function checkColdBytes(owned, peer, sizeBytes) {
  await check(owned, peer, sizeBytes, {
    words: 'from a disk',
    start: (image) => {
      drop(image, statSync(image).size);
      return startServer(owned, peer, 'unix', image);
    },
    rawOf: (image) => Promise.resolve(image),
  });
}

/**
 * The same with a qcow2 image of one of the kinds that cases have, over a unix socket. What a server wrote is read by qemu-img, which
 * looks through the image's tables too. An image that is all new has nothing to be read.
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {'full' | 'new' | 'backed'} kind
 * @param {number} sizeBytes
 */
export async function checkQcow2Bytes(owned, peer, kind, sizeBytes) {
  let path = '';
  const converted = join(owned.folder, 'converted.raw');
  await check(owned, peer, sizeBytes, {
    words: `with a qcow2 image (${kind})`,
    isEmpty: kind === 'new',
    start: async (image) => {
      rmSync(fullOf(image), { force: true });
      path = await qcow2Image(image, kind);
      return startServer(owned, peer, 'unix', path, { format: 'qcow2', direct: false });
    },
    rawOf: async (image) => {
      await succeed(owned, 'qemu-img', ['check', '-q', path], { limitMs: LIMIT_MS });
      await succeed(owned, 'qemu-img', ['convert', '-O', 'raw', path, converted], { limitMs: LIMIT_MS });
      for (const made of [path, fullOf(image)]) rmSync(made, { force: true });
      return converted;
    },
  });
  rmSync(converted, { force: true });
}

/**
 * @typedef {object} Way
 * @property {string} words
 * @property {boolean} [isEmpty] the server does not have what the raw image has
 * @property {(image: string) => Promise<import('./server.js').Server>} start on what a raw image has
 * @property {(image: string) => Promise<string>} rawOf once the server has ended: a raw file of what it was left with
 */

/**
 * @param {Owned} owned
 * @param {Peer} peer
 * @param {number} sizeBytes
 * @param {Way} way
 */
async function check(owned, peer, sizeBytes, { words, isEmpty = false, start, rawOf }) {
  const file = (/** @type {string} */ name) => join(owned.folder, `${name}.raw`);
  const [image, pattern, copy] = [file('checked'), file('pattern'), file('copy')];
  try {
    for (const { requestBytes, part } of PASSES) {
      makeImage(image, sizeBytes * part);
      makeImage(pattern, sizeBytes * part);
      const how = [`--request-size=${requestBytes}`];
      const server = await start(image);
      try {
        await succeed(owned, 'nbdcopy', [...how, server.uri, copy], { limitMs: LIMIT_MS });
        if (!isEmpty) await mustBeEqual(copy, image, `${peer.name} ${words} gave other bytes than the image has`);
        await succeed(owned, 'nbdcopy', [...how, '--flush', pattern, server.uri], { limitMs: LIMIT_MS });
      } finally {
        await server.stop();
      }
      await mustBeEqual(await rawOf(image), pattern, `${peer.name} ${words} wrote other bytes than it was given`);
    }
  } finally {
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
