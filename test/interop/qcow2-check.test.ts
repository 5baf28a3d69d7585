import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkAsJson } from '#tsnbd/cli/check-report.js';
import { checkImage } from '#tsnbd/image/check-image.js';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { openImage } from '#tsnbd/image/open-image.js';
import type { CheckResult } from '#tsnbd/image/qcow2/check-qcow2.js';
import { withImage } from '../image/qcow2/open-qcow2.js';
import { type Cluster, type Qcow2Bytes, qcow2Bytes } from '../image/qcow2/qcow2-bytes.js';
import { run, runTsnbd } from './served.js';

const CLUSTER = 4_096;
const GUEST_CLUSTERS = 1_200;

let folder: string;
let disk: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-qcow2-check-'));
  disk = join(folder, 'disk.qcow2');
});
afterEach(() => rmSync(folder, { recursive: true }));

const filled = (seed: number) => new Uint8Array(CLUSTER).map((_, index) => (index * seed) % 251);
const CLUSTERS: ReadonlyMap<number, Cluster> = new Map<number, Cluster>([
  [0, { kind: 'data', bytes: filled(1) }],
  [1, { kind: 'data', bytes: filled(2) }],
  [2, { kind: 'compressed', bytes: filled(3) }],
  [3, { kind: 'zero' }],
  [5, { kind: 'zero-allocated' }],
  [600, { kind: 'data', bytes: filled(4) }],
]);

/** Places of the image below, by the specification. */
interface Places extends Qcow2Bytes {
  readonly view: Buffer;
  /** Where the L2 entry of a guest cluster is. */
  readonly l2Entry: (guest: number) => number;
  readonly block: number;
  /** Of a cluster of the file. */
  readonly refcountOf: (cluster: number) => number;
  /** Adds to an entry of 64 bits. */
  readonly patch: (at: number, change: (entry: bigint) => bigint) => void;
  readonly hostOf: (guest: number) => number;
}

function made(incompatible = 0n): Places {
  const clusters = new Map(CLUSTERS);
  const clusterBits = incompatible === 0n ? 12 : 14;
  const image = qcow2Bytes({ clusterBits, sizeBytes: GUEST_CLUSTERS * CLUSTER, incompatible, clusters });
  const { bytes: view, l2At, refcountTableAt } = image;
  const entryBytes = incompatible === 0n ? 8 : 16;
  const perTable = 2 ** clusterBits / entryBytes;
  const l2Entry = (guest: number) => (l2At.get(Math.floor(guest / perTable)) ?? 0) + (guest % perTable) * entryBytes;
  const block = Number(view.readBigUInt64BE(refcountTableAt));
  return {
    ...image,
    view,
    l2Entry,
    block,
    refcountOf: (cluster) => block + 2 * cluster,
    patch: (at, change) => view.writeBigUInt64BE(BigInt.asUintN(64, change(view.readBigUInt64BE(at))), at),
    hostOf: (guest) => Number(view.readBigUInt64BE(l2Entry(guest)) & 0x00ff_ffff_ffff_fe00n),
  };
}

const COPIED = 1n << 63n;
const BEHIND = 1n << 40n;

type Damage = (places: Places) => void;
const nothing: Damage = () => {};
/** What is broken, whether subclusters are wanted, and what is left after a repair of everything. */
const DAMAGES: readonly (readonly [name: string, damage: Damage, left: 'nothing' | 'errors', extended?: boolean])[] = [
  ['nothing', nothing, 'nothing'],
  ['a cluster is counted twice', (p) => p.view.writeUInt16BE(2, p.refcountOf(p.hostOf(0) / CLUSTER)), 'nothing'],
  ['a table is counted three times', (p) => p.view.writeUInt16BE(3, p.refcountOf(p.l1At / CLUSTER)), 'nothing'],
  ['a cluster is not counted', (p) => p.view.writeUInt16BE(0, p.refcountOf(p.hostOf(1) / CLUSTER)), 'nothing'],
  [
    'a compressed cluster is not counted',
    (p) => p.view.writeUInt16BE(0, p.refcountOf(p.hostOf(600) / CLUSTER - 2)),
    'nothing',
  ],
  ['the header is not counted', (p) => p.view.writeUInt16BE(0, p.refcountOf(0)), 'nothing'],
  ['no cluster is counted', (p) => p.view.fill(0, p.block, p.block + CLUSTER), 'nothing'],
  [
    'every refcount is 7',
    (p) => {
      for (let at = 0; at < 40; at += 1) p.view.writeUInt16BE(7, p.refcountOf(at));
    },
    'nothing',
  ],
  ['the refcount block is not named', (p) => p.patch(p.refcountTableAt, () => 0n), 'nothing'],
  [
    'the refcount block is said to lie elsewhere',
    (p) => p.patch(p.refcountTableAt, () => BigInt(p.hostOf(0))),
    'nothing',
  ],
  [
    'the refcount block is said to be the header',
    (p) => p.patch(p.refcountTableAt, () => BigInt(CLUSTER) - BigInt(CLUSTER)),
    'nothing',
  ],
  ['the refcount block lies askew', (p) => p.patch(p.refcountTableAt, (entry) => entry + 512n), 'nothing'],
  ['the refcount block has reserved bits', (p) => p.patch(p.refcountTableAt, (entry) => entry + 1n), 'nothing'],
  [
    'a refcount block with reserved bits lies where data do',
    (p) => p.patch(p.refcountTableAt + 8, () => BigInt(p.hostOf(0)) + 1n),
    'nothing',
  ],
  ['two refcount blocks are one', (p) => p.patch(p.refcountTableAt + 8, () => BigInt(p.block)), 'nothing'],
  ['COPIED is not set in L2', (p) => p.patch(p.l2Entry(0), (entry) => entry ^ COPIED), 'nothing'],
  ['COPIED is not set in L1', (p) => p.patch(p.l1At, (entry) => entry ^ COPIED), 'nothing'],
  ['a cluster is used twice', (p) => p.patch(p.l2Entry(8), () => BigInt(p.hostOf(0)) | COPIED), 'nothing'],
  ['a compressed cluster is marked COPIED', (p) => p.patch(p.l2Entry(2), (entry) => entry | COPIED), 'errors'],
  ['an L2 entry points behind the end', (p) => p.patch(p.l2Entry(9), () => BEHIND | COPIED), 'errors'],
  ['an L2 entry points askew', (p) => p.patch(p.l2Entry(0), (entry) => entry + 512n), 'errors'],
  ['an L2 entry has reserved bits', (p) => p.patch(p.l2Entry(1), (entry) => entry | (1n << 57n)), 'errors'],
  ['an L1 entry points behind the end', (p) => p.patch(p.l1At + 16, () => BEHIND | COPIED), 'errors'],
  ['an L1 entry has reserved bits', (p) => p.patch(p.l1At, (entry) => entry | 2n), 'errors'],
  [
    'it is marked dirty, and one is not counted',
    (p) => {
      p.view.writeUInt8(1, 79);
      p.view.writeUInt16BE(0, p.refcountOf(p.hostOf(1) / CLUSTER));
    },
    'nothing',
  ],
  ['it is marked corrupt', (p) => p.view.writeUInt8(2, 79), 'nothing'],
  ['with subclusters nothing', nothing, 'nothing', true],
  ['subclusters are data and zeroes', (p) => p.view.writeUInt32BE(1, p.l2Entry(0) + 8), 'errors', true],
  ['subclusters have no cluster', (p) => p.view.writeUInt32BE(1, p.l2Entry(20) + 12), 'errors', true],
];

interface Told {
  readonly status: number;
  readonly facts: Record<string, unknown>;
}

function ours(repair?: 'leaks' | 'all'): Told {
  const result = checkImage(disk, { repair }, { onFinding: () => {}, onProgress: () => {} }) as CheckResult;
  const { checkErrors, corruptions, leaks } = result;
  const status = checkErrors > 0 ? 1 : corruptions > 0 ? 2 : leaks > 0 ? 3 : 0;
  return { status, facts: JSON.parse(checkAsJson(disk, result)) };
}

function theirs(...options: string[]): Told & { readonly stderr: string } {
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', '--output=json', ...options, disk], {
    encoding: 'utf8',
  });
  return { status: status ?? -1, facts: stdout === '' ? {} : JSON.parse(stdout), stderr };
}

const LOOKED_AT = [...Array(24).keys(), 512, 599, 600, 601, GUEST_CLUSTERS - 1];

/** The disk as it reads, in clusters; an error where one cannot be read. */
function content(): readonly string[] {
  return withImage(disk, (image) =>
    LOOKED_AT.map((cluster) => {
      const bytes = Buffer.alloc(CLUSTER);
      const errno = image.read(cluster * CLUSTER, CLUSTER, bytes, 0);
      return errno === 0 ? bytes.toString('base64') : `errno ${errno}`;
    }),
  );
}

const NAMED = DAMAGES.map(([name, damage, left, extended = false]) => ({ name, damage, left, extended }));

describe.each(NAMED)('$name:', ({ damage, left, extended }) => {
  beforeEach(() => {
    const places = made(extended ? 1n << 4n : 0n);
    damage(places);
    writeFileSync(disk, places.bytes);
  });

  test('it is found as qemu-img check finds it, and nothing is changed', () => {
    const before = readFileSync(disk);
    const their = theirs();
    expect(ours()).toEqual({ status: their.status, facts: their.facts });
    expect(readFileSync(disk).equals(before)).toBe(true);
  });

  test('and repaired: what is left is what qemu-img finds, and the disk reads the same', () => {
    const before = content();
    const told = ours('all');
    const { status, facts } = theirs();
    const { 'leaks-fixed': _leaks, 'corruptions-fixed': _corruptions, ...found } = told.facts;
    expect({ status: told.status, facts: found }).toEqual({ status, facts });
    expect(told.status).toBe(left === 'nothing' ? 0 : 2);
    expect(content()).toEqual(before);
    expect(readFileSync(disk).readUInt8(79) & 3).toBe(0);
  });
});

describe('leaks are repaired alone:', () => {
  test('what is counted too low stays', () => {
    const places = made();
    for (const [guest, refcount] of [
      [0, 3],
      [1, 0],
    ] as const)
      places.view.writeUInt16BE(refcount, places.refcountOf(places.hostOf(guest) / CLUSTER));
    writeFileSync(disk, places.bytes);
    const before = content();
    expect(ours('leaks')).toMatchObject({ status: 2, facts: { corruptions: 2, 'leaks-fixed': 1 } });
    expect(theirs()).toMatchObject({ status: 2, facts: { corruptions: 2 } });
    expect(content()).toEqual(before);
    places.view.writeUInt16BE(1, places.refcountOf(places.hostOf(1) / CLUSTER));
    places.patch(places.l2Entry(0), (entry) => entry ^ COPIED);
    writeFileSync(disk, places.bytes);
    expect(ours('leaks')).toMatchObject({ status: 0, facts: { 'leaks-fixed': 1, 'corruptions-fixed': 1 } });
    expect(theirs().status).toBe(0);
  });

  test('refcounts that have to be written anew stay as they are', () => {
    const places = made();
    places.patch(places.refcountTableAt, () => 0n);
    writeFileSync(disk, places.bytes);
    expect(ours('leaks').status).toBe(2);
    expect(readFileSync(disk).equals(places.bytes)).toBe(true);
  });
});

describe('a repair', () => {
  test('that is cut off after any of its writes has made nothing worse, and can be done again', () => {
    const places = made();
    places.patch(places.refcountTableAt, (entry) => entry + 512n);
    places.patch(places.l2Entry(8), () => BigInt(places.hostOf(0)) | COPIED);
    places.view.writeUInt8(3, 79);
    writeFileSync(disk, places.bytes);
    const before = content();
    const { write } = fileCalls;
    let writes = 0;
    for (let isWhole = false; !isWhole; writes += 1) {
      writeFileSync(disk, places.bytes);
      let left = writes;
      // Half of what is being written is there: a sector whole or not at all.
      fileCalls.write = (fd, source, at, length, offsetBytes) => {
        if (left-- > 0) return write(fd, source, at, length, offsetBytes);
        write(fd, source, at, Math.floor(length / 1024) * 512, offsetBytes);
        throw new Error('cut off');
      };
      try {
        isWhole = ours('all').status === 0;
      } catch (error) {
        expect(error).toMatchObject({ message: 'cut off' });
      } finally {
        fileCalls.write = write;
      }
      expect(content()).toEqual(before);
      expect(ours('all').status).toBe(0);
      expect(content()).toEqual(before);
    }
    expect(writes).toBeGreaterThan(4);
    expect(theirs().status).toBe(0);
  });

  const UNKNOWN_BITS = 0x8000_0000_0000_0104n;
  test.each<[string, Damage]>([
    ['a leak', (p) => p.view.writeUInt16BE(2, p.refcountOf(p.hostOf(0) / CLUSTER))],
    ['a flag', (p) => p.patch(p.l1At, (entry) => entry ^ COPIED)],
    ['refcounts that are written anew', (p) => p.patch(p.refcountTableAt, () => 0n)],
    ['the mark of a dirty image', (p) => p.view.writeUInt8(1, 79)],
    [
      'what a dirty image that is opened for writing has wrong',
      (p) => {
        p.view.writeUInt8(1, 79);
        p.view.writeUInt16BE(0, p.refcountOf(p.hostOf(0) / CLUSTER));
      },
    ],
  ])('of %s clears the autoclear bits that nobody knows, on the disk before anything else changes', (name, damage) => {
    const places = made();
    places.view.writeBigUInt64BE(UNKNOWN_BITS | 1n, 88);
    damage(places);
    writeFileSync(disk, places.bytes);
    const { write, sync } = fileCalls;
    const calls: string[] = [];
    fileCalls.write = (fd, source, at, length, offsetBytes) => {
      calls.push(`write at ${offsetBytes}`);
      return write(fd, source, at, length, offsetBytes);
    };
    fileCalls.sync = (fd) => {
      calls.push('sync');
      return sync(fd);
    };
    try {
      if (name.includes('opened')) openImage(disk, { readOnly: false }).close();
      else ours('all');
    } finally {
      Object.assign(fileCalls, { write, sync });
    }
    expect(readFileSync(disk).readBigUInt64BE(88)).toBe(1n);
    const first = calls.findIndex((call) => call !== 'sync');
    expect(calls.slice(first, first + 2)).toEqual(['write at 88', 'sync']);
    expect(calls.filter((call) => call.startsWith('write')).length).toBeGreaterThan(1);
  });

  test('with nothing to do leaves all bits as they are', () => {
    const places = made();
    places.view.writeBigUInt64BE(UNKNOWN_BITS | 1n, 88);
    writeFileSync(disk, places.bytes);
    ours('all');
    expect(readFileSync(disk).equals(places.bytes)).toBe(true);
  });

  test('writes nothing where tables point behind the end and refcounts would have to lie there', () => {
    const places = made();
    places.patch(places.refcountTableAt, () => 0n);
    places.patch(places.l2Entry(9), () => BEHIND | COPIED);
    writeFileSync(disk, places.bytes);
    expect(() => ours('all')).toThrow('there is no safe room for them');
    expect(readFileSync(disk).equals(places.bytes)).toBe(true);
  });

  test('that leaves errors does not have a dirty image opened for writing', () => {
    const places = made();
    places.view.writeUInt8(1, 79);
    places.patch(places.l1At + 8, () => BEHIND | COPIED); // what it pointed to is not used by anything else
    writeFileSync(disk, places.bytes);
    expect(() => openImage(disk, { readOnly: false })).toThrow('was not closed by its last writer');
    expect(readFileSync(disk).equals(places.bytes)).toBe(true);
    places.patch(places.l1At + 8, () => 0n);
    // A table and data in one cluster: found only when the refcounts are looked at.
    places.patch(places.l2Entry(8), () => BigInt(places.l1At) | COPIED);
    writeFileSync(disk, places.bytes);
    expect(() => openImage(disk, { readOnly: false })).toThrow('was not closed by its last writer');
    expect(readFileSync(disk).readUInt8(79)).toBe(1);
  });
});

describe('of a hostile image', () => {
  test('a refcount block that is said to lie in an L2 table is not written there, narrow as refcounts may be', () => {
    const places = made();
    places.view.writeUInt32BE(0, 96);
    places.patch(places.refcountTableAt, () => BigInt(places.l2At.get(0) ?? 0));
    writeFileSync(disk, places.bytes);
    const before = content();
    expect(ours('all').status).toBe(0);
    expect(content()).toEqual(before);
    expect(theirs().status).toBe(0);
  });

  test('an L1 table of a snapshot that is longer than any is not read', () => {
    const places = made();
    const table = Buffer.alloc(CLUSTER);
    table.writeBigUInt64BE(BigInt(places.view.length + CLUSTER), 0);
    table.writeUInt32BE((32 << 20) / 8 + 1, 8);
    table.write('\0\x01\0\x01', 12, 'latin1');
    table.writeUInt32BE(16, 36);
    table.write('1a', 56);
    places.view.writeUInt32BE(1, 60);
    places.view.writeBigUInt64BE(BigInt(places.view.length), 64);
    writeFileSync(disk, Buffer.concat([places.bytes, table]));
    truncateSync(disk, places.view.length + (33 << 20));
    const their = theirs();
    expect(their.stderr).toContain('L1 table is too large');
    expect(ours()).toEqual({ status: 2, facts: their.facts });
  });

  test('one L2 table is not read as often as a long L1 table names it', () => {
    const places = made();
    const l1 = Buffer.alloc(CLUSTER);
    for (let at = 0; at < CLUSTER; at += 8) l1.writeBigUInt64BE(BigInt(places.l2At.get(0) ?? 0), at);
    places.view.writeUInt32BE(CLUSTER / 8, 36);
    places.view.writeBigUInt64BE(BigInt(places.view.length), 40);
    writeFileSync(disk, Buffer.concat([places.bytes, l1]));
    expect(() => ours()).toThrow('an L1 table names more L2 tables than the file can hold');
  });

  test('a bitmap that is larger than any is not read', () => {
    const place = Buffer.alloc(24);
    place.writeUInt32BE(1, 0);
    place.writeBigUInt64BE(32n, 8);
    const wish = { clusterBits: 12, sizeBytes: CLUSTER, autoclear: 1n, extensions: [[0x2385_2875, place]] as const };
    const directory = BigInt(qcow2Bytes(wish).bytes.length);
    place.writeBigUInt64BE(directory, 16);
    const entry = Buffer.alloc(CLUSTER);
    entry.writeBigUInt64BE(directory, 0);
    entry.writeUInt32BE((512 << 20) / CLUSTER + 1, 8);
    entry.write('\x01\x10\0\x01', 16, 'latin1');
    entry.write('b', 24);
    writeFileSync(disk, Buffer.concat([qcow2Bytes(wish).bytes, entry]));
    expect(() => ours()).toThrow('its list of bitmaps makes no sense');
    expect(theirs().status).toBe(1);
  });
});

describe('what is shown and answered is as with qemu-img check:', () => {
  const program = (...args: string[]) => runTsnbd('check', ...args, disk);
  const img = (...args: string[]) => spawnSync('qemu-img', ['check', ...args, disk], { encoding: 'utf8' });

  test('of errors and leaks, of a repair, and of a clean image', async () => {
    const places = made();
    places.view.writeUInt16BE(2, places.refcountOf(places.hostOf(0) / CLUSTER));
    places.patch(places.l1At, (entry) => entry ^ COPIED);
    writeFileSync(disk, places.bytes);
    const their = img();
    const our = await program();
    expect({ status: our.status, stdout: our.stdout }).toEqual({ status: their.status, stdout: their.stdout });
    expect(our.stderr).toMatch(
      /^Leaked cluster \d+ refcount=2 reference=1\nERROR L1 entry 0x[0-9a-f]+ may have COPIED set\nERROR L2 entry 0x[0-9a-f]+ must not have COPIED set\n$/,
    );
    const repaired = await program('-r', 'all');
    writeFileSync(disk, places.bytes);
    const theirRepair = img('-r', 'all');
    expect({ status: repaired.status, stdout: repaired.stdout }).toEqual({ status: 0, stdout: theirRepair.stdout });
    const shown = `${process.execPath} ${join(import.meta.dirname, '../../dist/tsnbd.js')} check -r all ${disk}`;
    expect((await run('script', '-qec', shown, '/dev/null')).stdout).toMatch(/^(\r\[=* *\] \d+ %)+\r +\rNo errors/);
    const json = await program('--json');
    expect(json).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(json.stdout)).toEqual(theirs().facts);
  });

  test('of what cannot be checked', async () => {
    writeFileSync(disk, Buffer.alloc(CLUSTER));
    expect(await program()).toMatchObject({
      status: 63,
      stdout: '',
      stderr: expect.stringMatching(/^tsnbd: .* is raw: .*\n$/),
    });
    expect(img('-f', 'raw').status).toBe(63);
    writeFileSync(disk, made().bytes);
    expect((await program('-f', 'raw')).status).toBe(63);
    writeFileSync(disk, 'QFI\xfb\0\0\0\x09'.padEnd(200, '\0'), 'latin1');
    expect(await program()).toMatchObject({ status: 1, stderr: expect.stringMatching(/^tsnbd: .*of version 9\n$/) });
    expect(img().status).toBe(1);
    const held = made();
    writeFileSync(disk, held.bytes);
    const image = openImage(disk, { readOnly: false });
    const refused = [await program(), img()];
    const forced = await program('-U');
    image.close();
    for (const { status, stderr } of refused)
      expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/./) });
    expect(forced.status).toBe(0);
    // A program that runs cannot be written to.
    const watch = { onFinding: () => {}, onProgress: () => {} };
    expect(() => checkImage(process.execPath, { repair: 'all' }, watch)).toThrow(
      /\(ETXTBSY\); without --repair it is only looked at$/,
    );
  });

  test('of many findings the first thousand', async () => {
    const places = made();
    for (let at = 0; at < CLUSTER / 8; at += 1)
      if (places.view.readBigUInt64BE((places.l2At.get(0) ?? 0) + 8 * at) === 0n)
        for (const table of places.l2At.values())
          if (places.view.readBigUInt64BE(table + 8 * at) === 0n) places.patch(table + 8 * at, () => BEHIND);
    writeFileSync(disk, places.bytes);
    const { status, stdout, stderr } = await program();
    const their = img();
    expect({ status, stdout }).toEqual({ status: their.status, stdout: their.stdout });
    expect(stderr.split('\n')).toHaveLength(1_002);
  });
});

test('a cluster with a table and data in it is an error, although qemu-img finds none where it is counted twice', () => {
  const places = made();
  places.patch(places.l2Entry(8), () => BigInt(places.l1At) | COPIED);
  writeFileSync(disk, places.bytes);
  expect(ours()).toEqual({ status: 2, facts: theirs().facts });
  expect(ours('all')).toMatchObject({ status: 2, facts: { corruptions: 1 } });
  expect(theirs().status).toBe(0);
});

describe('a file of 16 TiB that is mostly a hole is checked in the memory that its tables need,', () => {
  const MEMORY_BYTES_MAX = 32 << 20;
  const CLUSTER_BYTES = 65_536;
  const LENGTH = 2 ** 44 - CLUSTER_BYTES;
  const FAR = 2 ** 43;

  function make(options: string): void {
    const script = `qemu-img create -q -f qcow2 -o ${options} disk.qcow2 1G; qemu-io -c 'write 5M 3M' disk.qcow2 >&2`;
    execFileSync('sh', ['-ec', script], { cwd: folder, stdio: 'pipe' });
    truncateSync(disk, LENGTH);
  }

  /** What we say in JSON. */
  function check(repair: 'all' | undefined) {
    const before = process.memoryUsage().arrayBuffers;
    let mostBytes = 0;
    const onProgress = () => {
      mostBytes = Math.max(mostBytes, process.memoryUsage().arrayBuffers - before);
    };
    const result = checkImage(disk, { repair }, { onFinding: () => {}, onProgress }) as CheckResult;
    expect(mostBytes).toBeLessThan(MEMORY_BYTES_MAX);
    return JSON.parse(checkAsJson(disk, result));
  }

  function theirs() {
    const { status, stdout } = spawnSync('qemu-img', ['check', '--output=json', disk], { encoding: 'utf8' });
    return { status, facts: JSON.parse(stdout) };
  }

  test.each(['refcount_bits=1', 'refcount_bits=16,lazy_refcounts=on'])('as by qemu-img: %s', (options) => {
    make(options);
    expect(theirs()).toEqual({ status: 0, facts: check(undefined) });
  });

  test('and repaired so that qemu-img finds nothing, where an entry points into the hole', () => {
    make('refcount_bits=1');
    const head = Buffer.alloc(1 << 20);
    const fd = openSync(disk, 'r+');
    readSync(fd, head, 0, head.length, 0);
    const l1At = Number(head.readBigUInt64BE(40));
    const l2At = Number(head.readBigUInt64BE(l1At) & 0x00ff_ffff_ffff_fe00n);
    const entry = Buffer.alloc(8);
    entry.writeBigUInt64BE(BigInt(FAR) | COPIED);
    writeSync(fd, entry, 0, 8, l2At);
    closeSync(fd);
    const found = check(undefined);
    expect(theirs()).toEqual({ status: 2, facts: found });
    // The refcount, and what the entry says of it.
    expect(found).toMatchObject({ corruptions: 2, 'image-end-offset': FAR + CLUSTER_BYTES });
    expect(check('all')).not.toHaveProperty('corruptions');
    expect(theirs()).toEqual({ status: 0, facts: check(undefined) });
  });
});
