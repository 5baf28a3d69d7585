import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { NBD_CMD_FLUSH, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES } from '#tsnbd/protocol/constants.js';
import { long } from '../long.js';
import { ProtocolClient } from '../server/protocol-client.js';
import { seeded } from '../server/seeded.js';
import { BLOCK, type Done, expectNoErrors, expectPossible, firstBytes, PossibleDisk } from './possible-disk.js';
import { type Served, serveUnix } from './served.js';

const SIZE = 4 << 20;
const CLIENTS = 4;
const LANE_BLOCKS = SIZE / BLOCK / CLIENTS;
const KILLS = long ? 300 : 3;

let folder: string;
let served: Served | undefined;
const inFolder = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-killed-'));
});
afterEach(async () => {
  served?.kill();
  await served?.exit;
  served = undefined;
  rmSync(folder, { recursive: true });
});

/** Sends one request after another to a quarter of the disk until the server is gone, and notes what it may hold. */
async function work(
  client: ProtocolClient,
  lane: number,
  possible: PossibleDisk,
  random: (below: number) => number,
  onAnswer: () => void,
): Promise<void> {
  for (;;) {
    const blocks = 1 + random(random(6) === 0 ? 200 : 16);
    const from = lane * LANE_BLOCKS + random(LANE_BLOCKS - blocks);
    const [offsetBytes, lengthBytes] = [from * BLOCK, blocks * BLOCK];
    const kind = random(12);
    const value = kind < 7 ? 1 + random(255) : 0;
    const done: Done =
      kind < 9
        ? { kind: 'set', from, values: new Uint8Array(blocks).fill(value), mayBeZero: false }
        : { kind: 'flush' };
    const request =
      kind < 7
        ? { type: NBD_CMD_WRITE, offsetBytes, data: Buffer.alloc(lengthBytes, value) }
        : kind < 9
          ? { type: NBD_CMD_WRITE_ZEROES, offsetBytes, lengthBytes }
          : { type: NBD_CMD_FLUSH };
    try {
      expect((await client.ask(request)).error).toBe(0);
      possible.do(done, true);
      onAnswer();
    } catch (error) {
      possible.do(done, false);
      if (/closed|without an answer|end/.test(String(error))) return;
      throw error;
    }
  }
}

it.each(['', 'cluster_size=512', 'extended_l2=on'])(
  'a server that is killed while four clients write has lost nothing that was flushed: %s',
  async (options) => {
    const path = inFolder('disk.qcow2');
    const option = options === '' ? [] : ['-o', options];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...option, path, String(SIZE)]);
    const random = seeded(KILLS);
    let disk = Buffer.alloc(SIZE);
    for (let kill = 0; kill < Math.ceil(KILLS / 3); kill += 1) {
      const server = await serveUnix(inFolder(`socket${kill}`), path, '-f', 'qcow2', '-e', '0', '-t');
      served = server;
      const clients = await Promise.all(
        Array.from({ length: CLIENTS }, () => ProtocolClient.negotiate(createConnection(inFolder(`socket${kill}`)))),
      );
      let answersLeft = 1 + random(300);
      const possible = clients.map(() => new PossibleDisk(firstBytes(disk)));
      await Promise.all(
        clients.map((client, lane) =>
          work(client, lane, possible[lane] ?? new PossibleDisk(firstBytes(disk)), random, () => {
            answersLeft -= 1;
            if (answersLeft === 0) server.kill();
          }),
        ),
      );
      await server.exit;
      const when = `kill ${kill}`;
      await expectNoErrors(path, when);
      execFileSync('qemu-img', ['convert', '-O', 'raw', path, inFolder('disk.raw')]);
      disk = readFileSync(inFolder('disk.raw'));
      const laneOf = (block: number) => Math.floor(block / LANE_BLOCKS);
      expectPossible(disk, { has: (block, value) => possible[laneOf(block)]?.has(block, value) ?? false }, when);
    }
  },
);
