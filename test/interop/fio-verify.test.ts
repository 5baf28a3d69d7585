import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FileRing } from '#tsnbd/kernel/file-ring.js';
import { NBD_CMD_READ } from '#tsnbd/protocol/constants.js';
import { connect } from '#tsnbd/transport/connect.js';
import { areReadsPiped } from '../large-pipes.js';
import { attachBy } from '../server/served-image.js';
import { READ_CALLS, type Step, stepsIn, tracingInto, WAY_CALLS } from './data-path-trace.js';
import { type Served, serveTraced, serveTracedTcp, succeed } from './served.js';

const MIB = 1_048_576;
const SIZE_BYTES = 64 * MIB;
/** What a run writes at most; a connection has a part of the image for itself. */
const WRITTEN_BYTES = 8 * MIB;
const LARGE_BYTES = 262_144;

let folder: string;
let image: string;
let server: Served | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-fio-'));
  image = join(folder, 'disk.raw');
  writeFileSync(image, randomFillSync(Buffer.alloc(MIB)));
  truncateSync(image, SIZE_BYTES);
});
afterEach(async () => {
  expect(await server?.stop()).toBe(0);
  expect(server?.said()).toBe('');
  server = undefined;
  rmSync(folder, { recursive: true });
});

/** A new qcow2 image in place of the raw one. */
async function makeQcow2(): Promise<void> {
  image = join(folder, 'disk.qcow2');
  await succeed('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=32k', image, String(SIZE_BYTES));
}

const trace = () => join(folder, 'trace');
const serve = (transport: 'tcp' | 'unix', ...options: string[]) =>
  serveWatched(`${WAY_CALLS},${READ_CALLS}`, transport, ...options);
const serveWatched = async (calls: string, transport: 'tcp' | 'unix', ...options: string[]) => {
  const args = ['-f', image.endsWith('raw') ? 'raw' : 'qcow2', '-t', '-e', '0', ...options, image];
  const tracing = tracingInto(trace(), calls);
  server = await (transport === 'tcp'
    ? serveTracedTcp(tracing, ...args)
    : serveTraced(join(folder, 'socket'), tracing, ...args));
  return server.uri;
};

/** With one core nobody waits awake, and everything is copied. */
const hasCores = availableParallelism() > 1;
const hasRing = isRingThere();

function isRingThere(): boolean {
  const ring = FileRing.open(1);
  ring?.close();
  return ring !== undefined;
}

/** How often each step was taken. */
function stepsTaken(): Readonly<Partial<Record<Step['kind'], number>>> {
  const counts: Partial<Record<Step['kind'], number>> = {};
  for (const { kind } of stepsIn(trace())) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

/** fio's options, without their dashes. */
type FioOptions = Readonly<Record<string, string | number>>;

/**
 * Runs jobs at the same time, each of which writes, reads back after some blocks, and compares; answers how many bytes each
 * has read. Fails when one has read what it did not write.
 */
async function verify(uri: string, shared: FioOptions, ...jobs: FioOptions[]): Promise<readonly number[]> {
  const always: FioOptions = {
    ioengine: 'nbd',
    uri,
    verify: 'crc32c',
    verify_fatal: 1,
    verify_state_save: 0,
    verify_backlog: 64,
    randseed: 4711,
    ...shared,
  };
  const args = jobs.flatMap((job, index) => [`--name=job${index}`, ...flags({ ...always, ...job })]);
  const report = await succeed('fio', '--output-format=json', ...args);
  const results: FioResult[] = JSON.parse(report.slice(report.indexOf('{'))).jobs;
  for (const { error, write } of results) {
    expect(error).toBe(0);
    expect(write.io_bytes).toBeGreaterThan(0);
  }
  return results.map(({ read }) => read.io_bytes);
}

interface FioResult {
  readonly error: number;
  readonly read: { readonly io_bytes: number };
  readonly write: { readonly io_bytes: number };
}

function flags(options: FioOptions): string[] {
  return Object.entries(options).map(([name, value]) => `--${name}=${value}`);
}

/** So many connections, each to a part of the image for itself. */
function connections(count: number): FioOptions {
  const whole = (bytes: number, blockBytes: number) => bytes - (bytes % blockBytes);
  const size = whole(WRITTEN_BYTES / count, LARGE_BYTES);
  return { numjobs: count, size, offset_increment: whole(SIZE_BYTES / count, MIB) };
}

/** Has the kernel forget what it holds of the image. */
const drop = () => succeed('dd', `of=${image}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none');

/** Has the kernel forget what it holds of the image, again and again, until `task` is done; answers how often. */
async function whileDropped<T>(task: Promise<T>): Promise<{ readonly result: T; readonly drops: number }> {
  let running = true;
  const settle = () => {
    running = false;
  };
  task.then(settle, settle);
  let drops = 0;
  while (running) {
    await drop();
    drops += 1;
    await sleep(20);
  }
  return { result: await task, drops };
}

const MIXED = { bsrange: '512-256k', bs_unaligned: 1 };
/**
 * The same from the start again when all is written. With its map of random blocks fio (3.33) then writes over blocks that
 * it has still to compare, on a plain file too; without, it does not wait for a read before it writes there, whose answer may
 * be either then.
 */
const MIXED_AGAIN = { ...MIXED, iodepth: 16, norandommap: 1, serialize_overlap: 1 };

describe('what fio writes is what it reads', () => {
  test.each(['unix', 'tcp'] as const)('one connection, one request at a time, over %s', async (transport) => {
    const uri = await serve(transport);
    await verify(uri, { rw: 'randwrite', bs: '4k', iodepth: 1, ...connections(1), size: 4 * MIB }, {});
    const { received, awake, asleep } = stepsTaken();
    expect(received).toBeGreaterThan(0);
    // At times the worker has waited awake, and as often it was seen again whether that is faster.
    if (hasCores) expect({ awake, asleep }).toEqual({ awake: expect.any(Number), asleep: expect.any(Number) });
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('%i connections, served in one way after the other', async (count) => {
    const uri = await serve('unix');
    const shared = connections(count);
    await verify(uri, { rw: 'randrw', bs: '4k', iodepth: 16, ...shared }, {});
    const sleepers = stepsIn(trace()).filter(({ kind }) => kind === 'received');
    expect(new Set(sleepers.map(({ socket }) => socket)).size).toBeGreaterThanOrEqual(count);
    await verify(uri, { rw: 'randwrite', bs: '4k', iodepth: 1, ...shared, size: LARGE_BYTES }, {});
    await verify(uri, { rw: 'randwrite', bs: LARGE_BYTES, iodepth: 8, ...shared }, {});
    expectSpliced('unix');
    await whileDropped(verify(uri, { rw: 'randrw', bs: '4k', iodepth: 32, ...shared }, {}));
    const { begun = 0, announced = 0 } = stepsTaken();
    expect(hasRing ? begun : announced).toBeGreaterThan(0);
  });

  test.each(['unix', 'tcp'] as const)('blocks of 256 KiB and 1 MiB over %s', async (transport) => {
    const uri = await serve(transport);
    await verify(
      uri,
      { rw: 'randwrite', bs: '256k', iodepth: 8, ...connections(2) },
      {},
      { bs: '1m', offset: 16 * MIB },
    );
    expectSpliced(transport);
  });

  test.each(['unix', 'tcp'] as const)('blocks of every size at every place over %s', async (transport) => {
    const uri = await serve(transport);
    await verify(uri, { rw: 'randwrite', ...MIXED, iodepth: 16, ...connections(4) }, {});
    expectSpliced(transport);
  });

  test.each([
    ['raw', 'unix', 1, { bs: '4k', iodepth: 32 }],
    ['raw', 'unix', 3, { bs: '64k', iodepth: 16 }],
    ['raw', 'unix', 5, { bs: '256k', iodepth: 8 }],
    ['raw', 'tcp', 7, { bs: '64k', iodepth: 16 }],
    ['qcow2', 'unix', 1, { bs: '4k', iodepth: 32 }],
    ['qcow2', 'tcp', 4, { bs: '16k', iodepth: 16 }],
  ] as const)(
    'past the page cache (--cache=none): %s over %s by %i connections: %j',
    async (format, transport, count, shape) => {
      if (format === 'qcow2') await makeQcow2();
      const uri = await serve(transport, '--cache=none');
      await verify(uri, { rw: 'randrw', ...shape, ...connections(count) }, {});
      const { direct, begun = 0, spliced = 0 } = stepsTaken();
      expect(direct).toBeGreaterThan(0);
      expect(begun > 0).toBe(hasRing);
      expect(spliced).toBe(0);
    },
  );

  test.each(['raw', 'qcow2'])(
    'past the page cache, parts of blocks of a %s image by several connections',
    async (format) => {
      if (format === 'qcow2') await makeQcow2();
      const uri = await serve('unix', '--cache=none');
      await verify(uri, { rw: 'randwrite', bsrange: '512-32k', bs_unaligned: 1, iodepth: 8, ...connections(8) }, {});
      expect(stepsTaken().direct).toBeGreaterThan(0);
    },
  );

  test.each([
    ['unix', { bs: '4k', iodepth: 32 }],
    // It takes some requests to see that data come from a disk.
    ['unix', { ...MIXED, iodepth: 16, size: 16 * MIB }],
    ['unix', { bs: '64k', iodepth: 16, size: 16 * MIB }],
    ['unix', { bs: '256k', iodepth: 8, size: 16 * MIB }],
    ['tcp', { ...MIXED, iodepth: 16, size: 16 * MIB }],
  ] as const)('from a disk over %s: the page cache is dropped all the time (%j)', async (transport, shape) => {
    const uri = await serve(transport);
    const { drops } = await whileDropped(verify(uri, { rw: 'randrw', ...connections(4), ...shape }, {}));
    expect(drops).toBeGreaterThan(1);
    const { begun = 0, announced = 0 } = stepsTaken();
    // From 64 KiB on reads of an image with holes are announced, and go by reference.
    expect(hasRing && 'bs' in shape && shape.bs === '4k' ? begun : begun + announced).toBeGreaterThan(0);
  });
});

/** Large replies over unix sockets, and no others, have gone by reference. */
function expectSpliced(transport: 'tcp' | 'unix'): void {
  const { spliced = 0 } = stepsTaken();
  expect(spliced > 0).toBe(transport === 'unix' && areReadsPiped);
}

describe('what fio writes is what it reads while the way it is served changes', () => {
  /** A client that comes later, and is gone before the first one. */
  const later = (index: number, options: FioOptions): FioOptions => ({
    offset: (8 * index + 8) * (SIZE_BYTES / 64),
    size: SIZE_BYTES / 8,
    startdelay: index % 2 === 0 ? '1000ms' : '1800ms',
    runtime: 2,
    ...options,
  });

  test.each([[[]], [['--cache=none']]])('alone, among seven others, cold, and alone again (%j)', async (options) => {
    const uri = await serveWatched(WAY_CALLS, 'unix', ...options);
    const others = [
      { bs: '4k', iodepth: 16 },
      { bs: '4k', iodepth: 1 },
      { bs: '64k', iodepth: 16 },
      { bs: '256k', iodepth: 8 },
      MIXED_AGAIN,
      { bs: '1m', iodepth: 4 },
      { bs: '512', iodepth: 64 },
    ];
    // It reads each block right after it wrote it: on a busy machine it may write few.
    const alone = { bs: '4k', iodepth: 1, offset: 0, size: SIZE_BYTES / 8, runtime: 7, verify_backlog: 1 };
    const jobs = others.map((shape, index) => later(index, shape));
    const fio = verify(uri, { rw: 'randwrite', time_based: 1, verify_backlog: 8 }, alone, ...jobs);
    await sleep(2_000);
    await whileDropped(Promise.race([fio, sleep(1_500)]));
    const [readAlone] = await fio;
    expect(readAlone).toBeGreaterThan(0); // the others' threads may hardly have begun, on a busy machine
    const { begun = 0, announced = 0 } = stepsTaken();
    expect(hasRing ? begun : announced).toBeGreaterThan(0);
    if (areReadsPiped && options.length === 0) expectTurns(stepsIn(trace()));
  });
});

test('on one connection the ways of reading follow on each other, and each byte is right', async () => {
  const bytes = randomFillSync(Buffer.alloc(SIZE_BYTES));
  writeFileSync(image, bytes);
  await serveWatched(WAY_CALLS, 'unix');
  const client = await attachBy(
    await connect({ kind: 'unix', path: join(folder, 'socket') }, AbortSignal.timeout(30_000)),
  );
  let [seen, asked] = [0, 0];
  /** Reads all of the image in blocks, so many at a time, in an order that no readahead guesses; answers the steps that this took. */
  const read = async (blockBytes: number, depth: number) => {
    const blocks = SIZE_BYTES / blockBytes;
    for (let first = 0; first < blocks; first += depth) {
      const offsets = new Map<number, number>();
      const requests = Array.from({ length: depth }, (_, index) => {
        const offsetBytes = (((first + index) * 7_919) % blocks) * blockBytes;
        asked += 1;
        offsets.set(asked, offsetBytes);
        return client.encode({ type: NBD_CMD_READ, offsetBytes, lengthBytes: blockBytes });
      });
      client.send(Buffer.concat(requests));
      while (offsets.size > 0) {
        const { error, cookie, data } = await client.reply();
        const offsetBytes = offsets.get(cookie) ?? -1;
        expect({ error, length: data.length }).toEqual({ error: 0, length: blockBytes });
        expect(data.equals(bytes.subarray(offsetBytes, offsetBytes + blockBytes))).toBe(true);
        offsets.delete(cookie);
      }
    }
    const steps = stepsIn(trace());
    const kinds = new Set(steps.slice(seen).map(({ kind }) => kind));
    seen = steps.length;
    return { spliced: kinds.has('spliced'), disk: kinds.has('begun') || kinds.has('announced') };
  };
  const warm = { spliced: areReadsPiped, disk: false };
  const cold = { spliced: areReadsPiped, disk: true };
  await read(MIB, 4);
  // Some reads after a slow one are taken for slow, too.
  await read(4_096, 32);
  expect(await read(256 * 1024, 16)).toEqual(warm);
  await drop();
  expect(await read(4_096, 32)).toEqual({ spliced: false, disk: true });
  await read(4_096, 32);
  expect(await read(256 * 1024, 16)).toEqual(warm);
  await drop();
  expect(await read(65_536, 16)).toEqual(cold);
  expect((await read(4_096, 32)).spliced).toBe(false);
  await drop();
  expect(await read(256 * 1024, 16)).toEqual(cold);
  client.close();
});

/** Whoever was alone was waited for awake, asleep while others had large replies by reference, and awake again after them. */
function expectTurns(steps: readonly Step[]): void {
  const alone = steps.find(({ kind }) => kind === 'awake')?.socket;
  const [first, last] = [
    steps.findIndex(({ kind }) => kind === 'spliced'),
    steps.findLastIndex(({ kind }) => kind === 'spliced'),
  ];
  const turns = steps.flatMap(({ kind, socket }, index) => {
    if (socket !== alone || (kind !== 'awake' && kind !== 'asleep')) return [];
    return [{ kind, when: index < first ? 'before' : index < last ? 'among others' : 'after' }];
  });
  expect(turns).toContainEqual({ kind: 'awake', when: 'before' });
  // It may have been put to sleep a moment before.
  const among = turns.filter(({ when }) => when === 'among others');
  expect([...turns.filter(({ when }) => when === 'before').slice(-1), ...among].map(({ kind }) => kind)).toContain(
    'asleep',
  );
  expect(turns).toContainEqual({ kind: 'awake', when: 'after' });
}
