import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { long, longTest } from '../long.js';
import { assertQuietKernel, freshDir, ok } from './guest.js';
import { BLOCK_BYTES, LANE_BLOCKS, lostBlocks } from './numbered-blocks.js';
import { expectNothingLeft, ROOT } from './programs.js';
import { attached, dropStorage, loopDevice, mappedDevice } from './storage.js';
import { loggedWrites } from './write-log.js';

const MIB = 1 << 20;
const RAW_PARTITION_OFFSET_BYTES = MIB;
const RAW_PARTITION_BYTES = 4 * MIB;
const FILE_SYSTEM_OFFSET_BYTES = 8 * MIB;
const DISK_BYTES = 32 * MIB;
/** A qcow2 image has tables besides. */
const IMAGE_BYTES = { raw: DISK_BYTES, qcow2: 36 * MIB } as const;
const LANE_BYTES = LANE_BLOCKS * BLOCK_BYTES;
const ROUNDS_ALONE = long ? 6 : 3;
const ROUNDS_TOGETHER = long ? 18 : 8;

/** Two lanes on a partition, two in files of a file system: each way that a program can make its data durable. */
const LANES = [
  { file: undefined, offsetBytes: 0, way: 'fua' },
  { file: undefined, offsetBytes: LANE_BYTES, way: 'fsync' },
  { file: 'synced', offsetBytes: 0, way: 'fdatasync' },
  { file: 'durable', offsetBytes: 0, way: 'dsync' },
] as const;

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

/** What a run left: the image as it was before, and the log of what became durable, in its order. */
interface Run {
  readonly dir: string;
  readonly format: 'raw' | 'qcow2';
  readonly image: Buffer;
  readonly log: Buffer;
  readonly marks: number;
  /** Of io_uring, which the server had at last: by one it syncs beside other requests. */
  readonly rings: number;
}

/** Attaches a disk on dm-log-writes, writes numbered blocks to its partition and its file system, and gives the log. */
async function writeNumbered(options: string, format: Run['format'] = 'raw'): Promise<Run> {
  const dir = freshDir('power-cut');
  const disk = join(dir, 'disk');
  makeDisk(disk, format);
  await ok(`cp --sparse=always ${disk} /tmp/power-cut.disk && rm -f /tmp/power-cut.log && modprobe dm-log-writes`);
  const below = await loopDevice(String(IMAGE_BYTES[format]), '/tmp/power-cut.disk');
  const logged = await loopDevice('512M', '/tmp/power-cut.log');
  const image = await mappedDevice('logged', below, `log-writes ${below} ${logged}`);
  const attachment = await attached(`-f ${format} ${options} ${image}`);
  const mount = `${dir}/mnt`;
  await ok(`: </dev/nbd0 && mkdir ${mount} && mount /dev/nbd0p2 ${mount}`);
  const lanes = LANES.map(({ file, offsetBytes, way }) => {
    return { path: file === undefined ? '/dev/nbd0p1' : join(mount, file), offsetBytes, way };
  });
  const written = JSON.parse(
    await ok(
      `node test/kernel/numbered-writer.js logged ${ROUNDS_ALONE} ${ROUNDS_TOGETHER} '${JSON.stringify(lanes)}'`,
      {
        cwd: ROOT,
        limitMs: 900_000,
      },
    ),
  );
  await ok(`umount ${mount}`);
  const rings = Number(await ok(`ls -l /proc/${attachment.pid}/fd | grep -c io_uring; true`));
  expect((await attachment.stop()).status).toBe(0);
  // The blocks of the sparse file are those that were written, and the log is written from its beginning on.
  await ok(
    `dmsetup remove logged && head -c $(($(stat -c %b /tmp/power-cut.log) * 512)) /tmp/power-cut.log >${dir}/log`,
  );
  expect(written.acknowledged).toEqual(LANES.map(() => ROUNDS_ALONE + ROUNDS_TOGETHER));
  return { dir, format, image: readFileSync(disk), log: readFileSync(join(dir, 'log')), marks: written.marks, rings };
}

function makeDisk(path: string, format: Run['format']): void {
  execFileSync('truncate', ['-s', String(DISK_BYTES), path]);
  const sectors = (bytes: number) => bytes / 512;
  const table = [
    'label: dos',
    `start=${sectors(RAW_PARTITION_OFFSET_BYTES)} size=${sectors(RAW_PARTITION_BYTES)} type=83`,
    `start=${sectors(FILE_SYSTEM_OFFSET_BYTES)} type=83`,
  ];
  execFileSync('sfdisk', ['-q', path], { input: `${table.join('\n')}\n` });
  const formatting = ['-q', '-b', '4096', '-J', 'size=4', '-E', `offset=${FILE_SYSTEM_OFFSET_BYTES}`, path];
  execFileSync('mkfs.ext4', [...formatting, String((DISK_BYTES - FILE_SYSTEM_OFFSET_BYTES) / 4096)]);
  if (format === 'raw') return;
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', format, path, `${path}.${format}`]);
  renameSync(`${path}.${format}`, path);
  execFileSync('truncate', ['-s', String(IMAGE_BYTES[format]), path]);
}

interface Replay {
  readonly marks: number;
  readonly flushes: number;
  /** What was acknowledged and is not there, or a file system that is damaged: a sentence each. */
  readonly losses: readonly string[];
}

/** Cuts the power at every mark and at every flush: what was acknowledged before must be there. */
function replay({ dir, format, image, log }: Run): Replay {
  const counts = { marks: 0, flushes: 0 };
  const losses: string[] = [];
  let acknowledged = LANES.map(() => 0);
  let files = new Map<string, Buffer>();
  let disk = image;
  let changed = true;
  for (const { offsetBytes, data, durable, mark } of loggedWrites(log)) {
    image.set(data, offsetBytes);
    changed ||= data.length > 0 && (format !== 'raw' || offsetBytes + data.length > FILE_SYSTEM_OFFSET_BYTES);
    // The log ends with a mark of its own.
    if (mark?.includes(',')) {
      acknowledged = mark.split(',').map(Number);
      counts.marks += 1;
    }
    if (durable) counts.flushes += 1;
    if (!durable && mark === undefined) continue;
    const found: string[] = [];
    if (changed && format === 'qcow2') disk = diskOf(join(dir, 'image'), image, (damage) => found.push(damage));
    if (changed) files = recoveredFiles(join(dir, 'replayed'), disk, (damage) => found.push(damage));
    changed = false;
    for (const [lane, { file, offsetBytes: start }] of LANES.entries()) {
      const bytes = file === undefined ? disk.subarray(RAW_PARTITION_OFFSET_BYTES + start) : files.get(file);
      found.push(...lostBlocks(bytes ?? Buffer.alloc(0), lane, acknowledged[lane] ?? 0));
    }
    losses.push(...found.map((loss) => `after mark ${counts.marks} and flush ${counts.flushes}: ${loss}`));
  }
  return { ...counts, losses };
}

/** The disk that a qcow2 image is, whose tables QEMU looks through first: clusters may be leaked. */
function diskOf(path: string, image: Buffer, onDamage: (damage: string) => void): Buffer {
  writeFileSync(path, image);
  const { status, stdout } = spawnSync('qemu-img', ['check', '-f', 'qcow2', path], { encoding: 'utf8' });
  if (status !== 0 && status !== 3) onDamage(`qemu-img check says ${status}: ${stdout}`);
  const opened = openImage(path, { readOnly: true });
  const disk = Buffer.alloc(DISK_BYTES);
  const reader = imageFrom(opened.handle);
  if (reader.read(0, DISK_BYTES, disk, 0) !== 0) onDamage('the image cannot be read');
  reader.close();
  opened.close();
  return disk;
}

/** Does what a mount after the power cut does, checks all of the file system, and gives its files. */
function recoveredFiles(path: string, disk: Buffer, onDamage: (damage: string) => void): Map<string, Buffer> {
  writeFileSync(path, disk.subarray(FILE_SYSTEM_OFFSET_BYTES));
  for (const way of [
    ['-p', '-E', 'journal_only'],
    ['-f', '-n'],
  ]) {
    const { status, stdout } = spawnSync('e2fsck', [...way, path], { encoding: 'utf8' });
    if (status !== 0) onDamage(`e2fsck ${way.join(' ')} says ${status}: ${stdout}`);
  }
  const dir = `${path}.files`;
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir);
  execFileSync('debugfs', ['-R', `rdump / ${dir}`, path], { stdio: 'pipe' });
  const names = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(names.map(({ name }) => [name, readFileSync(join(dir, name))]));
}

test.each(long ? ['writeback', 'none'] : ['writeback'])(
  'what --cache=%s acknowledged as durable is there after a power cut',
  async (cache) => {
    const run = await writeNumbered(`--cache=${cache}`);
    const { marks, flushes, losses } = replay(run);
    expect(losses).toEqual([]);
    expect(run.rings).toBeGreaterThan(0);
    expect(marks).toBe(run.marks);
    expect(flushes).toBeGreaterThan(ROUNDS_TOGETHER);
  },
);

longTest('of a qcow2 image too, which has no errors then', async () => {
  const run = await writeNumbered('', 'qcow2');
  const { marks, flushes, losses } = replay(run);
  expect(losses).toEqual([]);
  expect(marks).toBe(run.marks);
  expect(flushes).toBeGreaterThan(ROUNDS_TOGETHER);
});

test('--cache=unsafe loses what it acknowledged: these tests would see it', async () => {
  const { losses } = replay(await writeNumbered('--cache=unsafe'));
  expect(losses).not.toEqual([]);
});
