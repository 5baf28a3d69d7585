import { afterEach, describe, expect, test } from 'vitest';
import { long, longTest } from '../long.js';
import { assertQuietKernel, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbd } from './programs.js';
import { attached, dropStorage, ext4Folder } from './storage.js';

const MIB = 1_048_576;
const MODES: readonly (readonly [string, number])[] = [['unmap', 12], ...(long ? [['ignore', 0] as const] : [])];

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

/** An image full of random bytes on an ext4, and beside it a copy that is told what is to become of the image. */
async function fullImage(): Promise<{ image: string; expected: string }> {
  const dir = await ext4Folder('64M');
  await ok(`head -c 8M /dev/urandom >${dir}/disk.raw && cp ${dir}/disk.raw ${dir}/expected && sync`);
  return { image: `${dir}/disk.raw`, expected: `${dir}/expected` };
}

/** Runs a command that is to make a range of /dev/nbd0 zeroes, and looks at all of the device and the image. */
async function expectZeroed(command: string, { image, expected }: { image: string; expected: string }): Promise<void> {
  const [, offset = '0', length = '8'] = /(?:-o |seek=)(\d+)M? (?:-l |count=)(\d+)/.exec(command) ?? [];
  const steps = [
    // What the kernel knows of the device's content is to be right too.
    'cat /dev/nbd0 >/dev/null',
    command,
    `dd if=/dev/zero of=${expected} bs=1M seek=${offset} count=${length} conv=notrunc status=none`,
    `cmp /dev/nbd0 ${expected}`,
    `dd if=/dev/nbd0 bs=1M iflag=direct status=none | cmp - ${expected}`,
    `cmp ${image} ${expected}`,
  ];
  await ok(steps.join(' && '));
}

/** What the image's file occupies; the file system's own blocks for it are less than half of one. */
async function allocatedMib(image: string): Promise<number> {
  return Math.round(Number(await ok(`sync ${image} && du -k ${image} | cut -f 1`)) / 1024);
}

describe('a range of the device', () => {
  test('that is discarded or zeroed reads as zeroes, the rest as before; a discard gives its storage back', async () => {
    const files = await fullImage();
    const attachment = await attached(files.image);
    await expectZeroed('blkdiscard -z -o 5M -l 2M /dev/nbd0', files);
    await expectZeroed('fallocate -z -o 7M -l 1M /dev/nbd0', files);
    expect(await allocatedMib(files.image)).toBe(8);
    await expectZeroed('blkdiscard -o 1M -l 3M /dev/nbd0', files);
    expect(await allocatedMib(files.image)).toBe(5);
    await expectZeroed('blkdiscard /dev/nbd0', files);
    expect(await allocatedMib(files.image)).toBe(0);
    expect((await attachment.stop()).status).toBe(0);
  });

  longTest('cannot be discarded with --discard=ignore; zeroed, it keeps its storage', async () => {
    const files = await fullImage();
    const attachment = await attached(`--discard=ignore ${files.image}`);
    expect((await run('blkdiscard -o 1M -l 3M /dev/nbd0')).stderr).toMatch(/not supported/);
    await ok(`cmp /dev/nbd0 ${files.expected}`);
    await expectZeroed('blkdiscard -z -o 5M -l 2M /dev/nbd0', files);
    await expectZeroed('fallocate -z -o 7M -l 1M /dev/nbd0', files);
    expect(await allocatedMib(files.image)).toBe(8);
    expect((await attachment.stop()).status).toBe(0);
  });

  test('that zeroes are written to gives its storage back with --detect-zeroes=unmap', async () => {
    const files = await fullImage();
    const attachment = await attached(`--detect-zeroes=unmap ${files.image}`);
    // blkdiscard -z would not do: a kernel that knows WRITE_ZEROES (6.1 does not) asks with it to keep the storage.
    await expectZeroed('dd if=/dev/zero of=/dev/nbd0 bs=1M seek=5 count=2 oflag=direct status=none', files);
    expect(await allocatedMib(files.image)).toBe(6);
    expect((await attachment.stop()).status).toBe(0);
  });
});

test('a block device of large blocks is zeroed and trimmed from any byte to any other, and gives its storage back', async () => {
  const dir = await memoryDir('storage');
  await ok(`head -c 8M /dev/urandom >${dir}/disk && cp ${dir}/disk ${dir}/expected`);
  await ok(`truncate -s 320M ${dir}/disk ${dir}/expected`);
  const device = await ok(`modprobe loop && losetup -b 4096 -f --show ${dir}/disk`);
  const server = await startServer(`${tsnbd} -t -k ${dir}/socket -f raw ${device}`, isSocket(`${dir}/socket`));
  const qemuIo = (command: string) => ok(`qemu-io -f raw -c '${command}' nbd+unix:///?socket=${dir}/socket`);
  const zeroes = (from: number, bytes: number) =>
    ok(
      `head -c ${bytes} /dev/zero | dd of=${dir}/expected bs=64K oflag=seek_bytes seek=${from} conv=notrunc status=none`,
    );
  await qemuIo(`write -z -u 1000 ${3 * MIB}`);
  await zeroes(1000, 3 * MIB);
  await ok(`cmp -n 8M ${device} ${dir}/expected`);
  expect(await allocatedMib(`${dir}/disk`)).toBe(5);
  // Blocks and bytes whose content is told to be anything: only how much is left of them counts.
  await qemuIo(`discard ${4 * MIB + 1000} ${2 * MIB}`);
  expect(await allocatedMib(`${dir}/disk`)).toBe(3);
  await ok(`cmp -n ${4 * MIB + 1000} ${device} ${dir}/expected`);
  await ok(`cmp -i ${6 * MIB + 1000} -n 1M ${device} ${dir}/expected`);
  // -n: fast or not at all (FAST_ZERO), in more than one call.
  await qemuIo(`write -z -u -n 3 ${300 * MIB + 1}`);
  await zeroes(3, 300 * MIB + 1);
  await ok(`cmp ${device} ${dir}/expected`);
  expect(await allocatedMib(`${dir}/disk`)).toBe(0);
  expect((await server.stop()).status).toBe(0);
});

test.each(MODES)(
  'fstrim of a mounted ext4 with --discard=%s gives %i MiB back, and files stay as they were',
  async (mode, givenBack) => {
    const dir = await ext4Folder('96M');
    const image = `${dir}/disk.raw`;
    const socket = `${dir}/../socket`;
    const inner = `${dir}/../inner`;
    await ok(`truncate -s 48M ${image} && mkfs.ext4 -q ${image} && mkdir ${inner}`);
    const server = await startServer(`${tsnbd} -k ${socket} -f raw --discard=${mode} ${image}`, isSocket(socket));
    await ok(`nbd-client -L -unix ${socket} /dev/nbd0`);
    await until('test -e /sys/block/nbd0/pid');
    await ok(`mount /dev/nbd0 ${inner} && head -c 4M /dev/urandom >${inner}/kept`);
    await ok(`head -c 12M /dev/urandom >${inner}/gone && sync -f ${inner}`);
    const sum = await ok(`sha256sum ${inner}/kept`);
    const before = await allocatedMib(image);
    await ok(`rm ${inner}/gone && sync -f ${inner}`);
    expect((await run(`fstrim ${inner}`)).stderr).toMatch(mode === 'unmap' ? /^$/ : /not supported/);
    const shrunk = before - (await allocatedMib(image));
    // mkfs has written blocks that are free, too.
    expect(shrunk).toBeGreaterThanOrEqual(givenBack);
    expect(shrunk).toBeLessThanOrEqual(givenBack * 2);

    await ok(`umount ${inner} && mount -o ro /dev/nbd0 ${inner}`);
    expect(await ok(`sha256sum ${inner}/kept`)).toBe(sum);
    await ok(`umount ${inner} && nbd-client -L -d /dev/nbd0`);
    expect((await server.result).status).toBe(0);
    await ok(`e2fsck -f -n ${image} && mount -o loop,ro ${image} ${inner}`);
    expect(await ok(`sha256sum ${inner}/kept && umount ${inner}`)).toBe(sum);
  },
);
