import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { inLongRun } from '../long.js';
import { seeded } from '../server/seeded.js';

/** An image that qemu-img and qemu-io make. */
export interface ImageRecipe {
  readonly name: string;
  /** Makes it as `disk.qcow2` in a folder, with whatever belongs to it. */
  make(folder: string): void;
}

/** Of the disk, in bytes, unless a recipe says otherwise. */
export const SIZE = 4 << 20;

function qemuImg(folder: string, ...args: string[]): void {
  execFileSync('qemu-img', args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}

function qemuIo(folder: string, image: string, commands: readonly string[], ...options: string[]): void {
  const args = [...options, image, ...commands.flatMap((command) => ['-c', command])];
  execFileSync('qemu-io', args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Writes, zeroes and discards, here and there, the same for the same seed. */
function changes(seed: number, sizeBytes: number, count = 25): string[] {
  const random = seeded(seed);
  return Array.from({ length: count }, () => {
    const length = Math.min(sizeBytes, 512 * (1 + random(random(4) === 0 ? 400 : 20)));
    const offset = 512 * random(1 + (sizeBytes - length) / 512);
    const kind = random(8);
    if (kind === 0) return `write -z ${offset} ${length}`;
    if (kind === 1) return `write -z -u ${offset} ${length}`;
    if (kind === 2) return `discard ${offset} ${length}`;
    return `write -P ${1 + random(254)} ${offset} ${length}`;
  });
}

/** QEMU changes `disk.qcow2` of a folder here and there. */
export function changeByQemu(folder: string, sizeBytes: number): void {
  qemuIo(folder, 'disk.qcow2', changes(11, Math.floor(sizeBytes / 512) * 512, 12), '-d', 'unmap');
}

function plain(name: string, options: string, sizeBytes = SIZE): ImageRecipe {
  return {
    name,
    make: (folder) => {
      qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...option(options), 'disk.qcow2', String(sizeBytes));
      qemuIo(folder, 'disk.qcow2', changes(name.length, Math.floor(sizeBytes / 512) * 512), '-d', 'unmap');
    },
  };
}

function option(options: string): string[] {
  return options === '' ? [] : ['-o', options];
}

function overlay(name: string, options: string, baseFormat: string, baseBytes: number, sizeBytes = SIZE): ImageRecipe {
  return {
    name,
    make: (folder) => {
      qemuImg(folder, 'create', '-q', '-f', baseFormat, 'base.img', String(baseBytes));
      if (baseBytes > 0) qemuIo(folder, 'base.img', changes(7, baseBytes), '-f', baseFormat);
      const backing = ['-b', 'base.img', '-F', baseFormat];
      qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...option(options), ...backing, 'disk.qcow2', String(sizeBytes));
      qemuIo(folder, 'disk.qcow2', changes(8, sizeBytes));
    },
  };
}

function compressed(name: string, options: string): ImageRecipe {
  return {
    name,
    make: (folder) => {
      qemuImg(folder, 'create', '-q', '-f', 'raw', 'text.raw', String(SIZE));
      qemuIo(folder, 'text.raw', changes(5, SIZE, 60), '-f', 'raw');
      qemuImg(folder, 'convert', '-c', '-f', 'raw', '-O', 'qcow2', ...option(options), 'text.raw', 'disk.qcow2');
      qemuIo(folder, 'disk.qcow2', changes(6, SIZE, 8));
    },
  };
}

function snapshots(name: string, options: string): ImageRecipe {
  return {
    name,
    make: (folder) => {
      plain(name, options).make(folder);
      for (const snapshot of ['one', 'two']) {
        qemuImg(folder, 'snapshot', '-c', snapshot, 'disk.qcow2');
        qemuIo(folder, 'disk.qcow2', changes(snapshot.charCodeAt(1), SIZE, 12));
      }
    },
  };
}

function preallocated(how: string): ImageRecipe {
  return plain(`preallocation=${how}`, `preallocation=${how}`);
}

/** Every feature that the format has and QEMU writes, alone and with others. */
export const IMAGE_RECIPES: readonly ImageRecipe[] = [
  plain('defaults', ''),
  plain('version 2', 'compat=0.10'),
  ...[512, 2_097_152, ...inLongRun([1024, 4096, 16_384, 131_072])].map((bytes) =>
    plain(`clusters of ${bytes}`, `cluster_size=${bytes}`),
  ),
  ...[1, 8, 64, ...inLongRun([2, 4, 32])].map((bits) => plain(`refcounts of ${bits} bits`, `refcount_bits=${bits}`)),
  plain('refcounts of 64 bits, clusters of 512', 'refcount_bits=64,cluster_size=512'),
  plain('lazy refcounts', 'lazy_refcounts=on'),
  plain('subclusters', 'extended_l2=on'),
  plain('subclusters of 512', 'extended_l2=on,cluster_size=16384'),
  ...['metadata', 'falloc', ...inLongRun(['full'])].map(preallocated),
  plain('one sector', '', 512),
  plain('an odd size', '', SIZE - 1536),
  plain('a terabyte', '', 2 ** 40),
  plain('a data file', 'data_file=data.raw'),
  plain('a raw data file', 'data_file=data.raw,data_file_raw=on'),
  overlay('on raw', '', 'raw', SIZE),
  overlay('on raw that is longer', '', 'raw', 2 * SIZE),
  overlay('on raw of an odd size', '', 'raw', (1 << 20) + 512),
  overlay('on raw of 0 bytes', '', 'raw', 0),
  overlay('on qcow2', '', 'qcow2', SIZE),
  overlay('on qcow2, subclusters', 'extended_l2=on', 'qcow2', SIZE),
  overlay('on qcow2 that is shorter, subclusters', 'extended_l2=on', 'qcow2', (3 << 20) + 512),
  compressed('compressed with zlib', ''),
  compressed('compressed with zlib, subclusters', 'extended_l2=on'),
  compressed('compressed with zstd', 'compression_type=zstd'),
  compressed('compressed with zstd, clusters of 2M', 'compression_type=zstd,cluster_size=2M'),
  snapshots('snapshots', ''),
  snapshots('snapshots, version 2', 'compat=0.10'),
  snapshots('snapshots, subclusters', 'extended_l2=on'),
  {
    name: 'bitmaps',
    make: (folder) => {
      plain('bitmaps', '').make(folder);
      qemuImg(folder, 'bitmap', '--add', 'disk.qcow2', 'dirt');
      qemuIo(folder, 'disk.qcow2', changes(3, SIZE, 5));
    },
  },
  {
    name: 'three deep, the middle compressed, in another folder',
    make: (folder) => {
      execFileSync('mkdir', [join(folder, 'below')]);
      compressed('', '').make(join(folder, 'below'));
      const middle = ['-b', 'below/disk.qcow2', '-F', 'qcow2', 'middle.qcow2'];
      qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', ...middle);
      qemuIo(folder, 'middle.qcow2', changes(2, SIZE, 9));
      qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'middle.qcow2', '-F', 'qcow2', 'disk.qcow2');
      qemuIo(folder, 'disk.qcow2', changes(1, SIZE, 9));
    },
  },
  plain('version 2, clusters of 512', 'compat=0.10,cluster_size=512'),
  plain('subclusters of 64K', 'extended_l2=on,cluster_size=2097152'),
  plain('preallocation with subclusters', 'extended_l2=on,preallocation=metadata'),
  plain('a data file with subclusters', 'data_file=data.raw,extended_l2=on'),
  overlay('on raw that is shorter', '', 'raw', 3 << 20),
  overlay('on qcow2, version 2', 'compat=0.10', 'qcow2', SIZE),
  compressed('compressed with zlib, version 2', 'compat=0.10'),
  compressed('compressed with zstd, subclusters', 'compression_type=zstd,extended_l2=on'),
  ...inLongRun([
    plain('refcounts of 1 bit, clusters of 512', 'refcount_bits=1,cluster_size=512'),
    plain('clusters of 2M, an odd size', 'cluster_size=2M', SIZE + 512),
    overlay('on qcow2 that is shorter, clusters of 512', 'cluster_size=512', 'qcow2', 3 << 20),
    compressed('compressed with zlib, clusters of 512', 'cluster_size=512'),
    compressed('compressed with zlib, clusters of 2M', 'cluster_size=2M'),
    compressed('compressed with zstd, clusters of 4K', 'compression_type=zstd,cluster_size=4096'),
  ]),
];
