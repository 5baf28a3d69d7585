import { afterAll, afterEach, expect, test } from 'vitest';
import { assertQuietKernel, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, newImage, tsnbd } from './programs.js';
import { dropStorage } from './storage.js';

// Volumes of LVM and md on a device, as their own programs make them.

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});
afterAll(dropStorage);

/** The guest has no udev, which would make the nodes. */
const lvm = (words: string) => words.replace(' ', " -qq --config 'activation { udev_sync=0 udev_rules=0 }' ");
const PARTITIONS = "printf 'label: gpt\\nsize=40M\\nsize=20M\\nsize=20M\\n'";

test('--release takes down a volume with a snapshot, and an array, that are mounted, and nothing of them is lost', async () => {
  const dir = await memoryDir('mount');
  const image = await newImage('100M');
  const attach = `${tsnbd} -c nbd0 -f raw ${image}`;
  const mount = `mount /dev/group/volume ${dir} && mount /dev/md0 ${dir}/inner`;
  await ok(
    `modprobe -a dm-mod dm-snapshot md-mod raid0 && ${PARTITIONS} | sfdisk -q --no-tell-kernel ${image} && ${attach}`,
  );
  await ok(
    [
      lvm('pvcreate /dev/nbd0p1'),
      lvm('vgcreate group /dev/nbd0p1'),
      lvm('lvcreate -y -L 16M -n volume group'),
      lvm('lvcreate -y -s -L 8M -n before group/volume'),
      'mdadm --quiet --create /dev/md0 --run --level=0 --raid-devices=2 /dev/nbd0p2 /dev/nbd0p3',
      'mkfs.ext4 -q /dev/group/volume && mkfs.ext4 -q /dev/md0',
      `mount /dev/group/volume ${dir} && mkdir ${dir}/inner && mount /dev/md0 ${dir}/inner`,
      `head -c 1M /dev/urandom >${dir}/file && cp ${dir}/file ${dir}/inner`,
    ].join(' && '),
  );

  const holders = [
    'dm-1 (group-volume-real) holds /dev/nbd0p1',
    'dm-2 (group-before-cow) holds /dev/nbd0p1',
    'md0 holds /dev/nbd0p2',
    'md0 holds /dev/nbd0p3',
  ];
  expect(await run(`${tsnbd} -d nbd0`)).toEqual({
    status: 5,
    stdout: '',
    stderr: `tsnbd: /dev/nbd0 is in use: ${holders.join(', ')} (--force detaches it all the same)\n`,
  });
  expect(await run(`${tsnbd} -d --release nbd0`)).toEqual({
    status: 0,
    stdout: '/dev/nbd0 disconnected\n',
    stderr: [
      `tsnbd: /dev/md0: umount ${dir}/inner`,
      `tsnbd: /dev/dm-0: umount ${dir}`,
      'tsnbd: /dev/dm-1: dmsetup remove group-volume',
      'tsnbd: /dev/dm-1: dmsetup remove group-before',
      'tsnbd: /dev/nbd0p1: dmsetup remove group-volume-real',
      'tsnbd: /dev/nbd0p1: dmsetup remove group-before-cow',
      'tsnbd: /dev/nbd0p2: mdadm --stop /dev/md0',
      '',
    ].join('\n'),
  });
  await expectNothingLeft();
  expect(await ok('dmsetup ls && ! grep ^md /proc/mdstat && dmsetup mknodes')).toBe('No devices found');

  const assemble = 'mdadm --quiet --assemble /dev/md0 /dev/nbd0p2 /dev/nbd0p3';
  await ok(`${attach} && ${lvm('vgchange -ay group')} && ${assemble} && ${mount} && cmp ${dir}/file ${dir}/inner/file`);
  await ok(`${tsnbd} -d --release nbd0`);
});
