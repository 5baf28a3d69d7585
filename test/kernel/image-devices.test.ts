import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { assertQuietKernel, freshDir, memoryDir, ok, run } from './guest.js';

afterEach(async () => {
  await run('umount -d /tmp/image-*/mnt; losetup -D');
});

const openImageUrl = import.meta.resolve('#tsnbd/image/open-image.js');
const backingDeviceUrl = import.meta.resolve('#tsnbd/image/backing-device.js');

/** Runs a module in the guest that has openImage, imageFrom, imageLiesOn and `print`; gives what it printed, parsed. */
async function inGuest(code: string): Promise<unknown> {
  const script = join(freshDir('script'), 'script.mjs');
  const lines = [
    `import { imageFrom, openImage } from ${JSON.stringify(openImageUrl)};`,
    `import { imageLiesOn } from ${JSON.stringify(backingDeviceUrl)};`,
    'const print = (value) => console.log(JSON.stringify(value));',
    'const refusal = (path, options) => {',
    '  try { openImage(path, options).close(); return "opened"; } catch (e) { return e.code + ": " + e.message; }',
    '};',
    code,
  ];
  writeFileSync(script, lines.join('\n'));
  return JSON.parse(await ok(`node ${script}`));
}

async function loopDevice(size: string, ...options: string[]): Promise<{ disk: string; dir: string }> {
  const dir = await memoryDir('image');
  await ok(`mkdir ${dir}/mnt && truncate -s ${size} ${dir}/disk && modprobe loop`);
  return { disk: await ok(`losetup -f --show ${options.join(' ')} ${dir}/disk`), dir };
}

const writable = "{ format: 'raw', readOnly: false }";
const readOnly = "{ format: 'raw', readOnly: true }";

describe('a block device', () => {
  test('is an image: of its size, written, zeroed, trimmed, durable', async () => {
    const { disk, dir } = await loopDevice('8M');
    const got = await inGuest(`
      const opened = openImage('${disk}', ${writable});
      const image = imageFrom(opened.handle);
      const data = Buffer.alloc(1 << 20, 0x55);
      const errnos = [
        image.write(0, data.length, data, 0, true),
        image.write(7 << 20, data.length, data, 0, false),
        image.zero(4096, 4096, 1, false),
        image.zero(512, 1024, 0, false),
        image.zero(100, 3, 1, true),
        image.trim(16384, 65536, true),
        image.flush(),
        image.read(0, 16384, data, 0),
      ];
      const zeroes = [...data.subarray(0, 16384)].filter((byte) => byte === 0).length;
      print([opened.sizeBytes, opened.notices, errnos, zeroes]);
      opened.close();`);
    expect(got).toEqual([8 << 20, [], [0, 0, 0, 0, 0, 0, 0, 0], 4096 + 1024 + 3]);
    expect(await ok(`tail -c 1 ${dir}/disk`)).toBe('U');
  });

  test('of blocks of 4096 bytes takes ranges of 512', async () => {
    const { disk } = await loopDevice('8M', '-b 4096');
    const got = await inGuest(`
      const opened = openImage('${disk}', ${writable});
      const image = imageFrom(opened.handle);
      const data = Buffer.alloc(8192, 0x55);
      const errnos = [
        image.write(0, 8192, data, 0, false),
        image.zero(512, 512, 1, true),
        image.trim(4608, 512, true),
        image.read(0, 8192, data, 0),
      ];
      print([errnos, [...data].filter((byte) => byte === 0).length, [...data].lastIndexOf(0)]);
      opened.close();`);
    expect(got).toEqual([[0, 0, 0, 0], 512, 1023]);
  });

  test('that is mounted is not written to, nor mounted while we write to it; it can be read', async () => {
    const { disk, dir } = await loopDevice('8M');
    await ok(`mkfs.ext4 -q ${disk} && mount ${disk} ${dir}/mnt`);
    expect(await inGuest(`print([refusal('${disk}', ${writable}), refusal('${disk}', ${readOnly})])`)).toEqual([
      `in-use: ${disk} is in use: mounted, as swap, in another device, or open to one program alone; -r opens it for reading only`,
      'opened',
    ]);
    await ok(`umount ${dir}/mnt`);
    const status = await inGuest(`
      import { spawnSync } from 'node:child_process';
      const opened = openImage('${disk}', ${writable});
      const first = spawnSync('mount', ['${disk}', '${dir}/mnt']).status;
      opened.close();
      print([first, spawnSync('mount', ['${disk}', '${dir}/mnt']).status]);`);
    expect(status).toEqual([32, 0]);
  });

  test('whose partition is mounted is not written to', async () => {
    const { disk, dir } = await loopDevice('32M', '-P');
    await ok(
      `printf 'label: dos\\ntype=83\\n' | sfdisk -q ${disk} && mkfs.ext4 -q ${disk}p1 && mount ${disk}p1 ${dir}/mnt`,
    );
    expect(await inGuest(`print(refusal('${disk}', ${writable}))`)).toMatch(/^in-use: /);
  });

  test('that is read-only is opened with -r only', async () => {
    const { disk } = await loopDevice('8M', '-r');
    expect(await inGuest(`print([refusal('${disk}', ${writable}), refusal('${disk}', ${readOnly})])`)).toEqual([
      `read-only: ${disk} is a read-only device; -r opens it for reading only`,
      'opened',
    ]);
  });

  test('without a medium is empty', async () => {
    await ok('modprobe loop');
    expect(await inGuest(`print(refusal('/dev/loop6', ${writable}))`)).toBe(
      'not-an-image: /dev/loop6 is empty (0 bytes)',
    );
  });
});

test('a disk that loses a write fails every later flush and write, though the kernel tells of it once', async () => {
  const dir = await memoryDir('image');
  await ok(`mkdir ${dir}/mnt && mount -t tmpfs -o size=2m tmpfs ${dir}/mnt && truncate -s 16M ${dir}/mnt/disk`);
  await ok('modprobe loop');
  const disk = await ok(`losetup -f --show ${dir}/mnt/disk`);
  // The loop device takes the data into its cache and finds the file system full when it is to write them.
  const got = await inGuest(`
    import { fdatasyncSync } from 'node:fs';
    const opened = openImage('${disk}', ${writable});
    const [one, other] = [imageFrom(opened.handle), imageFrom(opened.handle)];
    const data = Buffer.alloc(8 << 20, 0x55);
    const written = one.write(0, data.length, data, 0, false);
    const flushes = [one.flush(), other.flush(), one.flush()];
    let kernel = 'says all is well';
    try { fdatasyncSync(opened.handle.fd); } catch { kernel = 'remembers'; }
    print([written, flushes, kernel, other.write(0, 512, data, 0, false), other.write(0, 512, data, 0, true)]);
    opened.close();`);
  await run(`losetup -d ${disk}; umount ${dir}/mnt`);
  expect(got).toEqual([0, [5, 5, 5], 'says all is well', 5, 5]);
});

test('a full file system is told as that, and takes writes again when there is room', async () => {
  const dir = await memoryDir('image');
  await ok(`mkdir ${dir}/mnt && mount -t tmpfs -o size=2m tmpfs ${dir}/mnt && truncate -s 16M ${dir}/mnt/disk`);
  const got = await inGuest(`
    const opened = openImage('${dir}/mnt/disk', ${writable});
    const image = imageFrom(opened.handle);
    const data = Buffer.alloc(4 << 20, 0x55);
    print([
      image.write(0, data.length, data, 0, false),
      image.write(8 << 20, 512, data, 0, true),
      image.trim(0, 16 << 20, false),
      image.write(8 << 20, 512, data, 0, true),
      image.zero(0, 8 << 20, 1, true),
    ]);
    opened.close();`);
  expect(got).toEqual([28, 28, 0, 0, 0]);
});

describe('a file on ext4, xfs, btrfs and tmpfs', () => {
  const FILE_SYSTEMS = ['ext4', 'xfs', 'btrfs', 'tmpfs'] as const;
  let dir: string;
  const on = (fileSystem: string) => `${dir}/${fileSystem}/disk`;
  /** With smaller ones ext4 before Linux 6.16 punches no holes behind 16 GiB (below). */
  const blocksOf = (type: string) => (type === 'ext4' ? '-b 4096' : '');

  beforeAll(async () => {
    dir = await memoryDir('image');
    const make = FILE_SYSTEMS.map((type) =>
      type === 'tmpfs'
        ? `mkdir tmpfs && mount -t tmpfs tmpfs tmpfs`
        : `(truncate -s 320M on.${type}; mkfs.${type} -q ${blocksOf(type)} on.${type} && mkdir ${type} && mount -o loop on.${type} ${type}) &`,
    );
    await ok(`modprobe loop; cd ${dir}; ${make.join('\n')}\nwait; truncate -s 3T ${FILE_SYSTEMS.map(on).join(' ')}`);
  });
  afterAll(async () => {
    await run(`umount ${dir}/*; losetup -D; rm -rf ${dir}`);
  });

  test('is the same disk of 3 TiB: written, zeroed, trimmed, mapped, durable, its storage given back', async () => {
    const got = await inGuest(`
      import { statSync } from 'node:fs';
      const all = {};
      for (const type of ${JSON.stringify(FILE_SYSTEMS)}) {
        const path = '${dir}/' + type + '/disk';
        const opened = openImage(path, ${writable});
        const image = imageFrom(opened.handle);
        const [at, data, back] = [2.5 * 2 ** 40, Buffer.alloc(1 << 20, 0x55), Buffer.alloc(1 << 20)];
        const errnos = [
          image.write(at, data.length, data, 0, true),
          image.write(3 * 2 ** 40 - 512, 512, data, 0, false),
          image.zero(at + 4096, 4096, 0, false),
          image.trim(at + 65536, 65536, true),
          image.flush(),
          image.read(at, back.length, back, 0),
        ];
        const extent = { lengthBytes: 0, hole: false, zero: false, depth: 0, hostBytes: -1 };
        const holes = Buffer.alloc(back.length);
        for (let place = 0; place < back.length; place += extent.lengthBytes) {
          errnos.push(image.status(at + place, back.length - place, extent));
          if (extent.zero) holes.fill(1, place, place + extent.lengthBytes);
        }
        const before = statSync(path).blocks;
        errnos.push(image.trim(at, 1 << 20, true));
        all[type] = {
          sizeBytes: opened.sizeBytes,
          trims: opened.traits.trim && before - statSync(path).blocks > 1000,
          failed: errnos.filter((errno) => errno !== 0),
          zeroes: [back.indexOf(0), back.filter((byte) => byte === 0).length],
          // What a file system keeps for zeroes is a hole to one, and data to the other.
          isTrimmedSeen: holes.subarray(65536, 131072).every((byte) => byte === 1),
          hidden: holes.findIndex((isHole, place) => isHole === 1 && back[place] !== 0),
        };
        opened.close();
      }
      print(all);`);
    const disk = { sizeBytes: 3 * 2 ** 40, trims: true, failed: [], zeroes: [4096, 4096 + 65_536] };
    const same = FILE_SYSTEMS.map((type) => [type, { ...disk, isTrimmedSeen: true, hidden: -1 }]);
    expect(got).toEqual(Object.fromEntries(same));
  });

  test('that is mounted read-only is opened with -r only', async () => {
    await ok(FILE_SYSTEMS.map((type) => `mount -o remount,ro ${dir}/${type}`).join(' && '));
    const refusals = FILE_SYSTEMS.map(
      (type) => `[refusal('${on(type)}', ${writable}), refusal('${on(type)}', ${readOnly})]`,
    );
    const why = 'read-only file system (EROFS); -r opens it for reading only';
    expect(await inGuest(`print([${refusals.join(', ')}])`)).toEqual(
      FILE_SYSTEMS.map((type) => [`read-only: cannot open ${on(type)} for writing: ${why}`, 'opened']),
    );
  });
});

test('zeroes are there too where ext4 says that it has punched a hole, and has not', async () => {
  const dir = await memoryDir('image');
  await ok(
    `modprobe loop; cd ${dir}; truncate -s 320M on; mkfs.ext4 -q -b 1024 on && mkdir mnt && mount -o loop on mnt`,
  );
  await ok(`cd ${dir}/mnt; truncate -s 3T disk
    qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on disk.qcow2 1T`);
  const got = await inGuest(`
    import { openSync, readSync } from 'node:fs';
    const data = Buffer.alloc(1 << 16, 0x55);
    const left = (name, format, seen, at) => {
      const opened = openImage('${dir}/mnt/' + name, { ...${writable}, format });
      const image = imageFrom(opened.handle);
      const errnos = [image.write(at, data.length, data, 0, true), image.zero(at, data.length, ${ZERO_MAY_PUNCH}, true)];
      opened.close();
      const back = Buffer.alloc(data.length);
      readSync(openSync('${dir}/mnt/' + seen, 'r'), back, 0, back.length, at);
      return [errnos, back.indexOf(0x55)];
    };
    print([left('disk', 'raw', 'disk', 2.5 * 2 ** 40), left('disk.qcow2', 'qcow2', 'data', 2 ** 39)]);`);
  await run(`umount ${dir}/mnt; rm -rf ${dir}`);
  expect(got).toEqual([
    [[0, 0], -1],
    [[0, 0], -1],
  ]);
});

describe('what an image lies on', () => {
  test('is found through a file system on a loop device on a file of another', async () => {
    const { disk, dir } = await loopDevice('32M');
    await ok(`mkfs.ext4 -q ${disk} && mount ${disk} ${dir}/mnt`);
    await ok(`truncate -s 16M ${dir}/mnt/inner`);
    const inner = await ok(`losetup -f --show ${dir}/mnt/inner`);
    await ok(
      `mkfs.ext4 -q ${inner} && mkdir ${dir}/inner && mount ${inner} ${dir}/inner && echo x >${dir}/inner/image`,
    );
    const names = [disk, inner, '/dev/loop6', '/dev/nbd0'].map((path) => path.slice('/dev/'.length));
    const got = await inGuest(`
      print([${JSON.stringify(names)}.map((name) => imageLiesOn('${dir}/inner/image', name)),
        refusal('${dir}/inner/image', { format: 'raw', readOnly: true, becomes: '${names[0]}' })]);`);
    await ok(`umount ${dir}/inner && losetup -d ${inner}`);
    expect(got).toEqual([
      [true, true, false, false],
      `own-device: ${dir}/inner/image lies on ${disk}, the device that it was to become`,
    ]);
  });
});

test('the kernel has nothing to complain of', assertQuietKernel.bind(undefined, undefined));
