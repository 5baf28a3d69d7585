import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from '#tsnbd/protocol/constants.js';
import { long } from '../long.js';
import { ProtocolClient } from '../server/protocol-client.js';
import { seeded } from '../server/seeded.js';
import { BLOCK, expectNoErrors, expectPossible, firstBytes, PossibleDisk } from './possible-disk.js';
import { type Served, serveUnixIn } from './served.js';

const SIZE = 4 << 20;
const CLIENTS = 4;
const LANE_BLOCKS = SIZE / BLOCK / CLIENTS;

interface Recipe {
  readonly name: string;
  readonly options?: string;
  readonly backing?: boolean;
  readonly snapshot?: boolean;
}

const RECIPES: readonly Recipe[] = [
  { name: 'clusters of 64K' },
  { name: 'clusters of 512', options: 'cluster_size=512' },
  { name: 'subclusters on a backing file', options: 'extended_l2=on,cluster_size=16384', backing: true },
  { name: 'a snapshot, and a backing file', options: 'cluster_size=4096', backing: true, snapshot: true },
  { name: 'version 2, with a snapshot', options: 'compat=0.10,cluster_size=4096', snapshot: true },
];
/** Of each image, at least: kills, and places in its server's work where a kill was or its image was looked at. */
const KILLS = long ? 300 / RECIPES.length : 2;
const POINTS = 300 / RECIPES.length;
/** The call that is not made any more is one of the first so many that change the image's file, or sync it. */
const CALLS = 400;
/** Before each so-many-th such call the server is stopped: what is in its image then is what a kill would leave. */
const STOP_EVERY = 7;

let folder: string;
let library: string;
let served: Served | undefined;
const inFolder = (name: string) => join(folder, name);
beforeAll(() => {
  const built = mkdtempSync(join(tmpdir(), 'tsnbd-kill-'));
  library = join(built, 'kill-at-call.so');
  const source = join(import.meta.dirname, '../fault/drivers/kill-at-call.c');
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']);
  return () => rmSync(built, { recursive: true });
});
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
async function work(client: ProtocolClient, lane: number, possible: PossibleDisk, random: Random): Promise<void> {
  try {
    for (;;) {
      const blocks = 1 + random(random(6) === 0 ? 200 : 16);
      const from = lane * LANE_BLOCKS + random(LANE_BLOCKS - blocks);
      await change(client, from, blocks, possible, random);
    }
  } catch (error) {
    if (!/closed|without an answer|end/.test(String(error))) throw error;
  }
}

type Random = (below: number) => number;

async function change(
  client: ProtocolClient,
  from: number,
  blocks: number,
  possible: PossibleDisk,
  random: Random,
): Promise<void> {
  const [offsetBytes, lengthBytes] = [from * BLOCK, blocks * BLOCK];
  const kind = random(13);
  const isDurable = random(8) === 0;
  const flags = isDurable ? NBD_CMD_FLAG_FUA : 0;
  const ask = async (request: Parameters<ProtocolClient['ask']>[0]) => {
    expect((await client.ask(request)).error).toBe(0);
  };
  if (kind >= 10) {
    await ask({ type: NBD_CMD_FLUSH });
    possible.do({ kind: 'flush' }, true);
    return;
  }
  // What is not answered may have been done, and whoever is killed answers nothing.
  if (kind === 9) {
    possible.do({ kind: 'set', from, values: possible.values(from, blocks), mayBeZero: true }, false);
    await ask({ type: NBD_CMD_TRIM, offsetBytes, lengthBytes, flags });
    const { data } = await client.read(offsetBytes, lengthBytes);
    possible.do({ kind: 'set', from, values: firstBytes(data), mayBeZero: true }, true);
  } else {
    const value = kind < 7 ? 1 + random(255) : 0;
    possible.do({ kind: 'set', from, values: new Uint8Array(blocks).fill(value), mayBeZero: false }, false);
    const noHole = random(2) === 0 ? NBD_CMD_FLAG_NO_HOLE : 0;
    await ask(
      kind < 7
        ? { type: NBD_CMD_WRITE, offsetBytes, data: Buffer.alloc(lengthBytes, value), flags }
        : { type: NBD_CMD_WRITE_ZEROES, offsetBytes, lengthBytes, flags: flags | noHole },
    );
  }
  if (isDurable) possible.hold(from, blocks);
}

function create(path: string, { options = '', backing = false, snapshot = false }: Recipe): void {
  const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const qemuIo = (image: string, ...commands: string[]) =>
    execFileSync('qemu-io', [image, ...commands.flatMap((command) => ['-c', command])], { stdio: 'ignore' });
  const base = inFolder('base.qcow2');
  if (backing) {
    qemuImg('create', '-q', '-f', 'qcow2', base, String(SIZE));
    qemuIo(base, 'write -P 200 100k 900k', 'write -P 201 2M 1M');
  }
  const below = backing ? ['-b', base, '-F', 'qcow2'] : [];
  qemuImg('create', '-q', '-f', 'qcow2', ...(options === '' ? [] : ['-o', options]), ...below, path, String(SIZE));
  qemuIo(path, 'write -P 100 50k 700k', 'write -P 101 3M 200k');
  if (snapshot) qemuImg('snapshot', '-c', 'one', path);
}

function asRaw(path: string, ...options: string[]): Buffer {
  execFileSync('qemu-img', ['convert', ...options, '-O', 'raw', path, inFolder('disk.raw')]);
  return readFileSync(inFolder('disk.raw'));
}

function readDisk(path: string): Buffer {
  const opened = openImage(path, { readOnly: true, forceShare: true });
  const image = imageFrom(opened.handle);
  const disk = Buffer.alloc(SIZE);
  expect(image.read(0, SIZE, disk, 0)).toBe(0);
  image.close();
  opened.close();
  return disk;
}

/** Has a process that stops again and again go on when it was looked at, until it is gone. Answers how often that was. */
async function atEachStop(pid: number, look: (stop: number) => Promise<void>): Promise<number> {
  for (let stops = 0; ; await sleep(1)) {
    const states = threadStates(pid);
    if (states === '' || states.includes('Z')) return stops;
    if (!/^T+$/.test(states)) continue;
    stops += 1;
    await look(stops);
    process.kill(pid, 'SIGCONT');
  }
}

/** A letter for each thread, as in proc(5): of a process that is gone none. */
function threadStates(pid: number): string {
  try {
    const tasks = readdirSync(`/proc/${pid}/task`);
    return tasks.map((task) => /\) (.)/.exec(readFileSync(`/proc/${pid}/task/${task}/stat`, 'latin1'))?.[1]).join('');
  } catch {
    return existsSync(`/proc/${pid}`) ? 'R' : '';
  }
}

it.each(RECIPES)(
  'a server that is killed at any call, while four clients write, has lost nothing that was flushed: $name',
  async (recipe) => {
    const path = inFolder('disk.qcow2');
    create(path, recipe);
    const snapshot = () => (recipe.snapshot === true ? asRaw(path, '-l', 'one') : Buffer.alloc(0));
    const before = snapshot();
    const random = seeded(KILLS);
    let disk = asRaw(path);
    let points = 0;
    for (let kill = 0; kill < KILLS || points < POINTS; kill += 1) {
      const at = 1 + random(CALLS);
      const socket = inFolder(`socket${kill}`);
      const killing = {
        LD_PRELOAD: library,
        KILL_CALLS: 'change',
        KILL_AT: String(at),
        STOP_EVERY: String(STOP_EVERY),
      };
      served = await serveUnixIn(killing, socket, path, '-f', 'qcow2', '-e', '0', '-t');
      const { pid = 0, exit } = served;
      const clients = await Promise.all(
        Array.from({ length: CLIENTS }, () => ProtocolClient.negotiate(createConnection(socket))),
      );
      const lanes = clients.map((client) => ({ client, possible: new PossibleDisk(firstBytes(disk)) }));
      const expectWhole = (found: Buffer, when: string) => {
        const laneOf = (block: number) => Math.floor(block / LANE_BLOCKS);
        const has = (block: number, value: number) => lanes[laneOf(block)]?.possible.has(block, value) ?? false;
        expectPossible(found, { has }, when);
      };
      const stops = atEachStop(pid, async (stop) => {
        const when = `kill ${kill}, stop ${stop}`;
        // Meanwhile the clients hear what was answered before.
        await expectNoErrors(path, when);
        expectWhole(readDisk(path), when);
      });
      const lanesEnd = Promise.all(lanes.map(({ client, possible }, lane) => work(client, lane, possible, random)));
      points += (await stops) + 1;
      await lanesEnd;
      expect(await exit).toBe(null);
      const when = `kill ${kill}, at call ${at}`;
      await expectNoErrors(path, when);
      disk = asRaw(path);
      expectWhole(disk, when);
    }
    expect(snapshot().equals(before)).toBe(true);
  },
);
