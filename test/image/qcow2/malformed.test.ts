import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { emptyExtent } from '#tsnbd/image/image.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { readAll, refusal, withImage } from './open-qcow2.js';
import {
  BACKING_FORMAT,
  BITMAPS,
  type Cluster,
  DATA_FILE_NAME,
  FEATURE_NAMES,
  type Qcow2Bytes,
  qcow2Bytes,
} from './qcow2-bytes.js';

const { EIO } = constants.errno;
const inFolder = useTemporaryFolder();
const clusterBytes = 65_536;

type Break = (image: Qcow2Bytes) => void;
const u32 =
  (at: number, value: number): Break =>
  ({ bytes }) =>
    void bytes.writeUInt32BE(value, at);
const u64 =
  (at: number, value: bigint): Break =>
  ({ bytes }) =>
    void bytes.writeBigUInt64BE(value, at);
const both =
  (...breaks: Break[]): Break =>
  (image) => {
    for (const each of breaks) each(image);
  };
const extension =
  (type: number, length: number): Break =>
  ({ bytes, extensionsAt }) => {
    bytes.writeUInt32BE(type, extensionsAt);
    bytes.writeUInt32BE(length, extensionsAt + 4);
  };
/** A name of a backing file at 1000, with its format. */
const backing =
  (name: string, format = 'raw'): Break =>
  (image) => {
    const { bytes, extensionsAt } = image;
    bytes.writeBigUInt64BE(1000n, 8);
    bytes.writeUInt32BE(bytes.write(name, 1000), 16);
    extension(BACKING_FORMAT, format.length)(image);
    bytes.write(format, extensionsAt + 8);
  };
/** The name of a data file. */
const dataFile = (name: string): Break =>
  both(u64(72, 4n), extension(DATA_FILE_NAME, name.length), ({ bytes, extensionsAt }) => {
    bytes.write(name, extensionsAt + 8);
  });
const unknownFeature =
  (name: string): Break =>
  (image) => {
    u64(72, 1n << 40n)(image);
    extension(FEATURE_NAMES, 48)(image);
    image.bytes.writeUInt8(0, image.extensionsAt + 8);
    image.bytes.writeUInt8(40, image.extensionsAt + 9);
    image.bytes.write(name, image.extensionsAt + 10);
  };

function good(): Qcow2Bytes {
  const bytes = new Uint8Array(clusterBytes).fill(7);
  const clusters = new Map<number, Cluster>([
    [0, { kind: 'data', bytes }],
    [1, { kind: 'compressed', bytes }],
    [2, { kind: 'data', bytes }],
  ]);
  return qcow2Bytes({ sizeBytes: 4 * clusterBytes, clusters });
}

function made(change: Break): string {
  const image = good();
  change(image);
  const path = inFolder('bad.qcow2');
  writeFileSync(path, image.bytes);
  return path;
}

it('the image that is broken below is a good one', () => {
  withImage(
    made(() => {}),
    (image) =>
      expect(
        readAll(image)
          .subarray(0, 3 * clusterBytes)
          .every((b) => b === 7),
      ).toBe(true),
  );
});

describe('a damaged header is refused:', () => {
  it.each<[string, Break, RegExp]>([
    ['clusters of 256 bytes', u32(20, 8), /its clusters have 2\^8 bytes/],
    ['clusters of 4 MiB', u32(20, 22), /its clusters have 2\^22 bytes/],
    ['clusters of 2^4294967295 bytes', u32(20, 0xffffffff), /2\^4294967295/],
    ['a disk of 2^64 - 1 bytes', u64(24, 2n ** 64n - 1n), /its disk has 18446744073709551615 bytes/],
    ['a disk of 2^53 bytes', u64(24, 2n ** 53n), /its disk has/],
    ['a disk larger than its L1 table', u64(24, 2n ** 40n), /its L1 table is too small/],
    ['no L1 table', u32(36, 0), /its L1 table is too small/],
    ['an L1 table of 32 GiB', u32(36, 0xffffffff), /its L1 table is too large/],
    ['an L1 table just too large', u32(36, (32 << 17) + 1), /its L1 table is too large/],
    ['an L1 table as large as may be, behind the end', u32(36, 32 << 17), /its L1 table lies behind its end/],
    ['an L1 table within a cluster', u64(40, 65_537n), /the offset of its L1 table \(65537\)/],
    ['an L1 table at 2^64', u64(40, 2n ** 64n - 65_536n), /the offset of its L1 table/],
    ['an L1 table behind the end', u64(40, 2n ** 40n), /its L1 table lies behind its end/],
    ['a refcount table within a cluster', u64(48, 512n), /the offset of its refcount table/],
    ['a refcount table at 2^63', u64(48, 2n ** 63n), /the offset of its refcount table/],
    ['no refcount table', u32(56, 0), /it has no refcount table/],
    ['a refcount table of 256 TiB', u32(56, 0xffffffff), /its refcount table is too large/],
    ['a refcount table just too large', u32(56, 129), /its refcount table is too large/],
    ['too many snapshots', u32(60, 65_537), /it has 65537 snapshots/],
    ['a snapshot table within a cluster', both(u32(60, 1), u64(64, 1n)), /the offset of its snapshot table/],
    ['refcounts of 128 bits', u32(96, 7), /its refcounts have 2\^7 bits/],
    ['a short header', u32(100, 96), /its header has 96 bytes/],
    ['a header of 109 bytes', u32(100, 109), /its header has 109 bytes/],
    ['a header of 4 GiB', u32(100, 0xfffffff8), /its header is longer than a cluster/],
    ['a compression type without its feature', ({ bytes }) => void bytes.writeUInt8(1, 104), /contradict each other/],
    ['the feature without a compression type', u64(72, 8n), /contradict each other/],
    ['the feature with a header that is too short', both(u64(72, 8n), u32(100, 104)), /contradict each other/],
    ['subclusters in clusters of 8 KiB', both(u32(20, 13), u64(72, 16n)), /too small for subclusters/],
    ['an extension of 4 GiB', extension(0x12345678, 0xffffffff), /longer than the room for it/],
    [
      'an extension one byte too long',
      extension(0x12345678, clusterBytes - 112 - 8 + 1),
      /longer than the room for it/,
    ],
    [
      'an extension that reaches into the name',
      both(backing('x.raw'), extension(1, 1000)),
      /longer than the room for it/,
    ],
    ['bitmaps of another length', extension(BITMAPS, 16), /its bitmaps extension has 16 bytes/],
    ['a backing name of 1024 bytes', both(u64(8, 1000n), u32(16, 1024)), /the name of its backing file does not fit/],
    ['a backing name of 4 GiB', both(u64(8, 1000n), u32(16, 0xffffffff)), /the name of its backing file does not fit/],
    ['a backing name at the end of its cluster', both(u64(8, 65_535n), u32(16, 2)), /does not fit/],
    ['a backing name at 2^64', both(u64(8, 2n ** 64n - 1n), u32(16, 2)), /does not fit/],
    ['a backing name with a zero byte', backing('a\0b'), /a zero byte/],
    ['a data file without a name', u64(72, 4n), /it does not name its data file/],
    [
      'a raw data file and a backing file',
      both(u64(72, 4n), u64(88, 2n), backing('x')),
      /a raw data file and a backing/,
    ],
  ])('%s', (_, change, message) => {
    const path = made(change);
    const error = refusal(path);
    expect(error.message).toMatch(message);
    expect(error.message).toContain(`${path} is a damaged qcow2 image: `);
    expect(error.code).toBe('damaged');
  });

  it.each([4, 16, 71, 72, 100, 103, 104])('a file that ends after %i bytes', (bytes) => {
    const path = inFolder('cut.qcow2');
    writeFileSync(path, good().bytes.subarray(0, bytes));
    expect(refusal(path).code).toBe('damaged');
  });
});

describe('what we cannot do is refused by name:', () => {
  it.each<[string, Break, RegExp]>([
    ['version 4', u32(4, 4), /it is of version 4/],
    ['AES', u32(32, 1), /it is encrypted \(AES\)/],
    ['LUKS', u32(32, 2), /it is encrypted \(LUKS\)/],
    ['another encryption', u32(32, 9), /it is encrypted \(9\)/],
    ['another compression', both(u64(72, 8n), ({ bytes }) => void bytes.writeUInt8(2, 104)), /compressed in a way/],
    ['a feature without a name', u64(72, 1n << 63n), /features that are not known: bit 63$/],
    ['a feature with a name', unknownFeature('tape\x1b[31m'), /not known: 'tape\?\[31m' \(bit 40\)$/],
    [
      'a backing file without a format',
      backing('b.raw', ''),
      /does not say what format .* qemu-img rebase -u -F FORMAT -b 'b.raw'/,
    ],
    ['a backing file of another format', backing('b.vmdk', 'vmdk'), /of the format 'vmdk', not raw or qcow2/],
    ['json:', backing('json:{"driver":"raw"}'), /only names of files are opened/],
    ['nbd:', backing('nbd://127.0.0.1/x'), /only names of files are opened/],
    ['fat:', backing('fat:/etc'), /only names of files are opened/],
    ['json: as a data file', dataFile('json:{}'), /has the data file 'json:\{\}': only names of files are opened/],
    ['nbd: as a data file', dataFile('nbd:h:1'), /only names of files are opened/],
  ])('%s', (_, change, message) => {
    const error = refusal(made(change));
    expect(error.message).toMatch(message);
    expect(error.code).toBe('unsupported');
  });
});

describe('a chain of backing files is refused', () => {
  it('that leads back to itself, by whatever name', () => {
    expect(refusal(made(backing('bad.qcow2', 'qcow2'))).message).toMatch(
      /bad.qcow2 is a part of itself \(the backing file of .*bad.qcow2\)$/,
    );
    expect(refusal(made(backing(`../${inFolder('.').split('/').at(-1)}/bad.qcow2`, 'qcow2'))).code).toBe('damaged');
  });

  it('that lacks an image', () => {
    const error = refusal(made(backing('nowhere.raw')));
    expect(error.code).toBe('missing');
    expect(error.message).toBe(
      `${inFolder('nowhere.raw')} does not exist (the backing file of ${inFolder('bad.qcow2')})`,
    );
  });

  it('that is deeper than any', () => {
    for (let depth = 0; depth < 66; depth += 1) {
      const image = good();
      backing(`${depth + 1}.qcow2`, 'qcow2')(image);
      writeFileSync(inFolder(`${depth}.qcow2`), image.bytes);
    }
    writeFileSync(inFolder('66.qcow2'), good().bytes);
    expect(refusal(inFolder('0.qcow2')).message).toContain('is the last of 64 images on one another');
    withImage(inFolder('2.qcow2'), (image) => expect(image.sizeBytes).toBe(4 * clusterBytes));
  });

  it('whose data file is itself', () => {
    expect(refusal(made(dataFile('bad.qcow2'))).message).toMatch(/is a part of itself \(the data file of/);
  });
});

it('a backing or data file in another folder, by an absolute name or by .., is opened, and told', () => {
  writeFileSync(inFolder('bad.raw'), 'x');
  withImage(made(backing(inFolder('bad.raw'))), (_, opened) => {
    expect(opened.notices.join()).not.toContain('another folder');
  });
  withImage(made(backing('/usr/bin/env')), (_, opened) => {
    expect(opened.notices).toContain(`${inFolder('bad.qcow2')} has a backing file in another folder: /usr/bin/env`);
  });
  const up = `${'../'.repeat(20)}usr/bin/env`;
  for (const [change, kind] of [
    [backing(up), 'backing'],
    [dataFile(up), 'data'],
  ] as const)
    withImage(made(change), (_, opened) => {
      const told = `${inFolder('bad.qcow2')} has a ${kind} file in another folder: ${inFolder('x').slice(0, -1)}${up}`;
      expect(opened.notices).toContain(told);
    });
});

describe('a damaged table is an error where it is read, and nowhere else:', () => {
  const l2 =
    (index: number, entry: bigint): Break =>
    ({ bytes, l2At }) => {
      bytes.writeBigUInt64BE(entry, (l2At.get(0) ?? 0) + 8 * index);
    };
  const copied = 1n << 63n;
  it.each<[string, Break, readonly number[]]>([
    [
      'an L2 table within a cluster',
      ({ bytes, l1At }) => void bytes.writeBigUInt64BE(copied | 66_048n, l1At),
      [0, 1, 2, 3],
    ],
    ['an L2 table at 2^55', ({ bytes, l1At }) => void bytes.writeBigUInt64BE(copied | (1n << 55n), l1At), [0, 1, 2, 3]],
    ['an L2 table behind the end', ({ bytes, l1At }) => void bytes.writeBigUInt64BE(copied | (1n << 40n), l1At), []],
    ['a cluster within a cluster', l2(0, copied | 0x50200n), [0]],
    ['a cluster at 2^55', l2(0, copied | (1n << 55n)), [0]],
    ['a compressed cluster behind 2^53', l2(1, (1n << 62n) | (1n << 53n)), [1]],
    ['a compressed cluster of nothing', l2(1, (1n << 62n) | (1n << 40n)), [1]],
    ['a compressed cluster of other bytes', l2(1, (1n << 62n) | 0n), [1]],
    [
      'a compressed cluster that ends early',
      ({ bytes, l2At }) => {
        const at = Number(bytes.readBigUInt64BE((l2At.get(0) ?? 0) + 8) & 0xffff_ffffn);
        bytes.fill(0, at + 20, at + 60_000);
      },
      [1],
    ],
    ['zeroes in version 2', both(u32(4, 2), l2(2, copied | 0x50001n)), [2]],
  ])('%s', (_, change, bad) => {
    withImage(made(change), (image) => {
      const target = Buffer.alloc(512);
      const errors = [0, 1, 2, 3].filter((cluster) => {
        const errno = image.read(cluster * clusterBytes, 512, target, 0);
        if (errno !== 0) expect(errno).toBe(EIO);
        return errno !== 0;
      });
      expect(errors).toEqual(bad);
      const extent = emptyExtent();
      for (const cluster of [0, 1, 2, 3]) expect([0, EIO]).toContain(image.status(cluster * clusterBytes, 512, extent));
    });
  });

  it('a compressed bomb is stopped', () => {
    const bomb = qcow2Bytes({
      sizeBytes: clusterBytes,
      clusters: new Map<number, Cluster>([[0, { kind: 'compressed', bytes: new Uint8Array(16 << 20) }]]),
    });
    writeFileSync(inFolder('bomb.qcow2'), bomb.bytes);
    withImage(inFolder('bomb.qcow2'), (image) => expect(image.read(0, 512, Buffer.alloc(512), 0)).toBe(EIO));
  });
});

it('unknown compatible and autoclear features, fields and extensions are no reason to refuse an image', () => {
  const change = both(u64(80, 0xff00n), u64(88, 0xff00n), extension(0x7e577e57, 100), u32(100, 112));
  withImage(made(change), (image) => expect(readAll(image)[0]).toBe(7));
});

describe('an image is not opened for writing where its tables contradict each other, as QEMU marks it corrupt:', () => {
  const refcountEntry =
    (block: number, entry: bigint): Break =>
    ({ bytes, refcountTableAt }) =>
      void bytes.writeBigUInt64BE(entry, refcountTableAt + 8 * block);
  const l1 =
    (placeOf: (image: Qcow2Bytes) => number): Break =>
    (image) =>
      void image.bytes.writeBigUInt64BE((1n << 63n) | BigInt(placeOf(image)), image.l1At);
  const withSnapshot =
    (l1Of: (image: Qcow2Bytes) => number): Break =>
    (image) => {
      const entry = Buffer.alloc(clusterBytes);
      entry.writeBigUInt64BE(BigInt(l1Of(image)), 0);
      entry.writeUInt32BE(1, 8);
      both(u32(60, 1), u64(64, BigInt(image.bytes.length)))(image);
      Object.assign(image, { bytes: Buffer.concat([image.bytes, entry]) });
    };
  const bitmapsAt =
    (placeOf: (image: Qcow2Bytes) => number): Break =>
    (image) => {
      extension(BITMAPS, 24)(image);
      image.bytes.writeUInt32BE(1, image.extensionsAt + 8);
      image.bytes.writeBigUInt64BE(32n, image.extensionsAt + 16);
      image.bytes.writeBigUInt64BE(BigInt(placeOf(image)), image.extensionsAt + 24);
      u64(88, 1n)(image);
    };
  it.each<[string, Break, RegExp]>([
    ['a refcount block within a cluster', refcountEntry(0, 66_048n), /refcount block 0 lies where another table is/],
    ['a refcount block at 2^63', refcountEntry(0, 1n << 63n), /refcount block 0 lies/],
    ['a refcount block with a reserved bit', refcountEntry(0, 0x20001n), /refcount block 0 lies/],
    ['a refcount block at 2^55', refcountEntry(1, 1n << 55n), /refcount block 1 lies/],
    ['a refcount block that is the L1 table', (image) => refcountEntry(0, BigInt(image.l1At))(image), /block 0 lies/],
    ['a refcount block that is the table', (i) => refcountEntry(0, BigInt(i.refcountTableAt))(i), /block 0 lies/],
    [
      'one refcount block twice',
      (i) => refcountEntry(1, i.bytes.readBigUInt64BE(i.refcountTableAt))(i),
      /block 1 lies/,
    ],
    ['a refcount table that is the header', u64(48, 0n), /refcount table overlaps another table/],
    ['a refcount table that is the L1 table', (i) => u64(48, BigInt(i.l1At))(i), /refcount table overlaps/],
    ['a refcount table behind the end', u64(48, 2n ** 40n), /it ends within a table/],
    ['an L1 table that is the header', u64(40, 0n), /L2 table 0 lies|refcount table overlaps|its L1 table/],
    ['an L2 table that is the L1 table', l1(({ l1At }) => l1At), /L2 table 0 lies/],
    ['an L2 table that is the refcount table', l1(({ refcountTableAt }) => refcountTableAt), /L2 table 0 lies/],
    ['an L2 table that is a refcount block', l1((i) => i.refcountTableAt + clusterBytes), /L2 table 0 lies/],
    ['an L2 table within a cluster', l1(() => 66_048), /L2 table 0 lies/],
    ['a snapshot table behind the end', both(u32(60, 1), u64(64, 2n ** 40n)), /its snapshot table makes no sense/],
    ['an L1 table that is that of a snapshot', withSnapshot(({ l1At }) => l1At), /its L1 table overlaps another table/],
    [
      'an L1 table that is the snapshot table',
      both(
        withSnapshot(() => 0x40_0000),
        (i) => u64(40, i.bytes.readBigUInt64BE(64))(i),
      ),
      /its L1 table overlaps another table/,
    ],
    ['an L1 table that is the list of bitmaps', bitmapsAt(({ l1At }) => l1At), /its L1 table overlaps another table/],
    ['a list of bitmaps that is the header', bitmapsAt(() => 0), /its header overlaps a table/],
    ['an L1 table of a snapshot that is the header', withSnapshot(() => 0), /its header overlaps a table/],
    [
      'a refcount table that is the L1 table of a snapshot',
      withSnapshot(({ refcountTableAt }) => refcountTableAt),
      /its refcount table overlaps another table/,
    ],
    ['the mark', u64(72, 2n), /is marked as corrupt/],
  ])('%s', (_, change, message) => {
    const path = made(change);
    expect(() => openImage(path, { readOnly: false }).close()).toThrow(message);
    expect(readFileSync(path).equals(readFileSync(made(change)))).toBe(true);
  });

  it('and is still read', () => {
    withImage(made(withSnapshot(({ l1At }) => l1At)), (image) => expect(readAll(image)[0]).toBe(7));
  });
});

describe('a damaged snapshot is refused where it is asked for:', () => {
  const L1_ENTRIES_AT = 8;
  const EXTRA_AT = 36;
  const DISK_BYTES_AT = 48;
  /** One snapshot, '1' 'one', of the disk as it is, whose entry is then changed. */
  const withSnapshot =
    (change: (entry: Buffer) => void): Break =>
    (image) => {
      const entry = Buffer.alloc(clusterBytes);
      entry.writeBigUInt64BE(BigInt(image.l1At), 0);
      entry.writeUInt32BE(1, L1_ENTRIES_AT);
      entry.writeUInt16BE(1, 12);
      entry.writeUInt16BE(3, 14);
      entry.writeUInt32BE(16, EXTRA_AT);
      entry.writeBigUInt64BE(BigInt(4 * clusterBytes), DISK_BYTES_AT);
      entry.write('1one', 56);
      change(entry);
      both(u32(60, 1), u64(64, BigInt(image.bytes.length)))(image);
      Object.assign(image, { bytes: Buffer.concat([image.bytes, entry]) });
    };
  const open = (change: (entry: Buffer) => void) => {
    const opened = openImage(made(withSnapshot(change)), { readOnly: true, snapshot: { idOrName: 'one' } });
    opened.close();
    return opened.sizeBytes;
  };

  it('the one that is broken below is a good one', () => {
    expect(open(() => {})).toBe(4 * clusterBytes);
  });

  it.each<[string, (entry: Buffer) => void, RegExp]>([
    [
      'an L1 table within a cluster',
      (entry) => entry.writeBigUInt64BE(66_048n),
      /its snapshot 1 'one' has an L1 table/,
    ],
    ['an L1 table at 2^64', (entry) => entry.writeBigUInt64BE(2n ** 64n - 65_536n), /has an L1 table that is none/],
    ['an L1 table behind the end', (entry) => entry.writeBigUInt64BE(2n ** 40n), /its L1 table lies behind its end/],
    [
      'an L1 table of 32 GiB',
      (entry) => entry.writeUInt32BE(0xffffffff, L1_ENTRIES_AT),
      /has an L1 table that is none/,
    ],
    ['no L1 table', (entry) => entry.writeUInt32BE(0, L1_ENTRIES_AT), /has an L1 table that is none/],
    ['a disk of 2^64 - 1 bytes', (entry) => entry.writeBigUInt64BE(2n ** 64n - 1n, DISK_BYTES_AT), /is none/],
    ['a disk larger than its table', (entry) => entry.writeBigUInt64BE(2n ** 30n, DISK_BYTES_AT), /is none/],
    ['extra data of 4 GiB', (entry) => entry.writeUInt32BE(0xffffffff, EXTRA_AT), /snapshot table makes no sense/],
    ['a name behind the end', (entry) => entry.fill(0xff, 12, 16), /snapshot table makes no sense/],
  ])('%s', (_, change, message) => {
    expect(() => open(change)).toThrow(message);
  });
});
