import { afterAll, afterEach, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, newImage, pidBehind, startServer, tsnbd, tsnbdClient } from './programs.js';
import { dropStorage, loopDevice, mappedDevice } from './storage.js';

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});
afterAll(dropStorage);

const THREE_PARTITIONS = "printf 'label: gpt\\nsize=20M\\nsize=20M\\nsize=20M\\n'";
const inUse = (how: string) => ({
  status: 5,
  stdout: '',
  stderr: `tsnbd: /dev/nbd0 is in use${how} (--force detaches it all the same)\n`,
});

test('--release takes down what uses a device, leaves first; what is not its own stays', async () => {
  const dir = await memoryDir('mount');
  const image = await newImage('100M');
  await ok(`${THREE_PARTITIONS} | sfdisk -q --no-tell-kernel ${image} && ${tsnbd} -c nbd0 -f raw ${image}`);
  const mapped = await mappedDevice('top', '/dev/nbd0p1', 'linear /dev/nbd0p1 0');
  await ok(`mkfs.ext4 -q ${mapped} && mount ${mapped} ${dir} && mkdir ${dir}/inner`);
  await ok(`mkfs.ext4 -q /dev/nbd0p2 && mount /dev/nbd0p2 ${dir}/inner`);
  await ok('modprobe loop && losetup /dev/loop6 /dev/nbd0p3 && mkswap /dev/loop6 >/dev/null && swapon /dev/loop6');
  const busy = await background(`cd ${dir}/inner && exec sleep 100`);
  const refused = await run(`${tsnbd} -d --release nbd0`);
  expect(refused).toMatchObject({ status: 5, stdout: '' });
  expect(refused.stderr).toContain(`tsnbd: /dev/nbd0p2 is in use, and umount ${dir}/inner failed: `);
  await busy.stop();

  expect(await run(`${tsnbd} -d --release nbd0`)).toEqual({
    status: 0,
    stdout: '/dev/nbd0 disconnected\n',
    stderr: [
      `tsnbd: /dev/nbd0p2: umount ${dir}/inner`,
      `tsnbd: /dev/dm-0: umount ${dir}`,
      'tsnbd: /dev/loop6: swapoff /dev/loop6',
      'tsnbd: /dev/nbd0p1: dmsetup remove top',
      'tsnbd: /dev/nbd0p3: losetup --detach /dev/loop6',
      '',
    ].join('\n'),
  });
  await expectNothingLeft();

  const other = await loopDevice('4M');
  await ok(`${tsnbd} -c nbd0 -f raw ${image}`);
  await ok(`printf '0 1024 linear /dev/nbd0p1 0\\n1024 1024 linear ${other} 0\\n' | dmsetup create both`);
  const stays = await run(`${tsnbd} -d --release nbd0`);
  expect(stays).toMatchObject({ status: 5, stdout: '' });
  expect(stays.stderr).toBe(`tsnbd: dm-0 (both) holds /dev/nbd0p1, and ${other} too: it stays\n`);
  await ok(`dmsetup remove both && ${tsnbd} -d nbd0`);
});

test('a file system that was unmounted lazily, or in a namespace without a process, shows nowhere, and keeps the device', async () => {
  const image = await newImage('64M');
  const dir = await memoryDir('mount');
  await ok(`mkfs.ext4 -q ${image} && ${tsnbd} -c nbd0 -f raw ${image} && mount /dev/nbd0 ${dir}`);
  const user = await background(`cd ${dir} && exec sleep 100`);
  await ok(`umount -l ${dir}`);
  const hidden =
    ' by what shows nowhere: a program, or a file system that was unmounted lazily or is mounted in another namespace';
  expect(await run(`${tsnbd} -d nbd0`)).toEqual(inUse(hidden));
  await user.stop();
  expect(await run(`${tsnbd} -d nbd0`)).toEqual({ status: 0, stdout: '/dev/nbd0 disconnected\n', stderr: '' });

  // A mount namespace without a process, which a mount of its own keeps.
  await ok(
    `${tsnbd} -c nbd0 -f raw ${image} && mkdir ${dir}/ns && mount --bind ${dir}/ns ${dir}/ns && mount --make-private ${dir}/ns`,
  );
  await ok(
    `touch ${dir}/ns/mnt && unshare --mount=${dir}/ns/mnt mount /dev/nbd0 /mnt && ! grep nbd0 /proc/[0-9]*/mounts`,
  );
  expect(await run(`${tsnbd} -d nbd0`)).toEqual(inUse(hidden));
  await ok(`umount ${dir}/ns/mnt ${dir}/ns`);
  expect(await run(`${tsnbd} -d nbd0`)).toEqual({ status: 0, stdout: '/dev/nbd0 disconnected\n', stderr: '' });
});

// The driver counts openers: nbd_config_put, at the last close, ends what a device is, and by then it has neither holders nor requests.
test.each([
  ['netlink', /is still attached, though its process is gone, and in use: dm-0 \(top\) holds \/dev\/nbd0\n$/],
  ['ioctl', /is not free: it is attached by process or thread \d+; detach it first, or take another device\n$/],
])('a device that was cut off under another is not taken while that has it, and is then (%s)', async (api, refusal) => {
  const image = await newImage('16M');
  const attach = `${tsnbd} -c nbd0 -f raw ${image} --kernel-api=${api}`;
  await ok(attach);
  const mapped = await mappedDevice('top', '/dev/nbd0', 'linear /dev/nbd0 0');
  const cut = await run(`${tsnbd} -d --force nbd0`);
  expect(cut).toMatchObject({
    status: 5,
    stderr: expect.stringContaining('not free until nothing uses it: dm-0 (top)'),
  });
  expect(await run(attach)).toEqual({ status: 5, stdout: '', stderr: expect.stringMatching(refusal) });
  expect(await run(`dd if=${mapped} of=/dev/null bs=64k count=1 iflag=direct`)).toMatchObject({ status: 1 });
  await ok(`dmsetup remove top && ${attach} && ${tsnbd} -d nbd0`);
});

test('a device that cannot be opened in 5 s, as while its server is silent, counts as one that nobody claims', async () => {
  const dir = await memoryDir('claim');
  const server = await startServer(`nbdkit -f -U ${dir}/sock memory 16M`, isSocket(`${dir}/sock`));
  await ok(`${tsnbdClient} -unix ${dir}/sock nbd0 --no-persist && kill -s STOP ${server.pid}`);
  // It reads, and no other can open the device meanwhile (disk->open_mutex).
  const reader = await background('exec blockdev --rereadpt /dev/nbd0');
  await until(`grep -q "^State:.D" /proc/${reader.pid}/status`);
  // That it says what became of the flush, not who uses the device, tells that it did not take the silence for a claim.
  expect(await run(`timeout 40 ${tsnbd} -d nbd0`)).toEqual({
    status: 7,
    stdout: '',
    stderr: expect.stringMatching(
      /^tsnbd: what was written last to \/dev\/nbd0, whose process is gone, may be lost \(.*\n$/,
    ),
  });
  await ok(`kill -s CONT ${server.pid}`);
  expect(await reader.result).toMatchObject({ status: 0 });
  await until('! pgrep -f disconnect-process.js');
  await ok(`${tsnbd} -d nbd0`);
  await server.stop('KILL');
});

test('a device is freed by force though its process is stopped, or does not answer, and without it that is said', async () => {
  const image = await newImage('4M');
  const attach = `${tsnbd} -c nbd0 -f raw ${image}`;
  for (const api of ['netlink', 'ioctl']) {
    await ok(`${attach} --kernel-api=${api}`);
    const pid = await pidBehind('nbd0');
    await ok(`kill -s STOP ${pid}`);
    const owner = `tsnbd: process ${pid}, which serves /dev/nbd0,`;
    expect(await run(`${tsnbd} -d nbd0`)).toEqual({
      status: 7,
      stdout: '',
      stderr: `${owner} is stopped; kill -CONT ${pid} lets it go on, and so does --force\n`,
    });
    expect(await run(`${tsnbd} -d --force nbd0`)).toEqual({
      status: 0,
      stdout: '/dev/nbd0 disconnected\n',
      stderr: `${owner} was stopped, and goes on\n`,
    });
    await expectNothingLeft();
  }

  await ok(attach);
  const pid = await pidBehind('nbd0');
  const groups = await memoryDir('groups');
  await ok(`mount -t cgroup2 none ${groups} && mkdir ${groups}/frozen`);
  await ok(`echo ${pid} >${groups}/frozen/cgroup.procs && echo 1 >${groups}/frozen/cgroup.freeze`);
  await until(`grep -q '^frozen 1' ${groups}/frozen/cgroup.events`);
  const killed = await run(`${tsnbd} -d --force nbd0`);
  await ok(`rmdir ${groups}/frozen && umount ${groups}`);
  expect(killed).toEqual({
    status: 0,
    stdout: '/dev/nbd0 disconnected\n',
    stderr: `tsnbd: process ${pid}, which serves /dev/nbd0, did not answer in 15 s, and was killed\n`,
  });
});

test('writes that failed are told when the device is detached, and before', async () => {
  const dir = await memoryDir('full');
  await ok(`mount -t tmpfs -o size=2m tmpfs ${dir} && truncate -s 16M ${dir}/disk.raw`);
  await ok(`${tsnbd} -c nbd0 -f raw ${dir}/disk.raw`);
  expect((await run('dd if=/dev/urandom of=/dev/nbd0 bs=1M count=8 oflag=direct')).status).toBe(1);
  const { writeErrors } = JSON.parse(await ok(`${tsnbd} status --json nbd0`)) as { writeErrors: number };
  expect(writeErrors).toBeGreaterThan(0);
  const { status, stderr } = await run(`${tsnbd} -d nbd0`);
  expect(stderr).toBe(`tsnbd: ${writeErrors} writes to /dev/nbd0 failed while it was attached\n`);
  expect(status).toBe(0);
  await ok(`umount ${dir}`);
});
