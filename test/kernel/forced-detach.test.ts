import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd, tsnbdClient } from './programs.js';

afterEach(async () => {
  for (const device of ['nbd0', 'nbd1']) await expectNothingLeft(device);
  await assertQuietKernel();
});

const inFlight = (device: string) =>
  `read -r reads writes </sys/block/${device}/inflight && test $((reads + writes)) -ge 1`;

test.each([
  ['an image', 'ioctl'],
  ['an image', 'netlink'],
  ['a remote export', 'ioctl'],
  ['a remote export', 'netlink'],
])(
  'a mounted device that is written to is cut off by force, and free when it is unmounted (%s by %s)',
  async (what, api) => {
    const dir = await memoryDir('forced');
    const server = await startServer(`nbdkit -f -U ${dir}/sock memory 64M`, isSocket(`${dir}/sock`));
    const source =
      what === 'an image'
        ? `${tsnbd} -c nbd0 -f raw ${await newImage('64M')}`
        : `${tsnbdClient} -unix ${dir}/sock nbd0`;
    await ok(
      `${source} --kernel-api=${api} && mkfs.ext4 -q /dev/nbd0 && mkdir ${dir}/mnt && mount /dev/nbd0 ${dir}/mnt`,
    );
    const job =
      '--rw=randwrite --bs=64k --size=16M --direct=1 --ioengine=libaio --iodepth=8 --time_based --runtime=120';
    const writer = await background(`exec fio --name=writer --filename=${dir}/mnt/file ${job}`);
    await until(inFlight('nbd0'));
    const refused = await run(`${tsnbd} -d nbd0`);
    expect(refused).toMatchObject({ status: 5, stdout: '' });
    expect(refused.stderr).toContain(`in use: /dev/nbd0 is mounted on ${dir}/mnt`);
    const forced = await run(`${tsnbd} -d --force nbd0`);
    expect(forced).toMatchObject({ status: 5, stdout: '' });
    expect(forced.stderr).toContain(
      `cut off, but not free until nothing uses it: /dev/nbd0 is mounted on ${dir}/mnt\n`,
    );
    const { status, stdout, stderr } = await writer.result;
    expect(status).not.toBe(0);
    expect(stdout + stderr).toMatch(/Input\/output error|Read-only file system|No space left/);
    await ok(`umount ${dir}/mnt`);
    await expectNothingLeft();
    await server.stop('KILL');
  },
);

test('a device whose server has stopped with its socket full is cut off by force once that takes nothing for a while', async () => {
  const dir = await memoryDir('stopped');
  const server = await startServer(`nbdkit -f -U ${dir}/sock memory 16M`, isSocket(`${dir}/sock`));
  const attach = (device: string, api: string) => `${tsnbdClient} -unix ${dir}/sock ${device} --kernel-api=${api}`;
  await ok(`${attach('nbd0', 'ioctl')} && ${attach('nbd1', 'netlink')} && kill -s STOP ${server.pid}`);
  const ends = ['nbd0', 'nbd1'].map(async (device) => {
    const write = `dd if=/dev/zero of=/dev/${device} bs=8M count=1 oflag=direct status=none`;
    const waiting = await background(`exec ${write}`);
    await until(inFlight(device));
    // Less than a flush of a server that goes on may take.
    const detached = await run(`timeout 40 ${tsnbd} -d --force ${device}`);
    return { detached, waiting: await waiting.result };
  });
  for (const { detached, waiting } of await Promise.all(ends)) {
    expect(detached).toMatchObject({ status: 0, stdout: expect.stringMatching(/^\/dev\/nbd[01] disconnected\n$/) });
    expect(waiting).toMatchObject({ status: 1, stderr: expect.stringContaining('Input/output error') });
  }
  await server.stop('KILL');
});

test('without anybody who connects again, what was sent to a server that is gone waits for the limit of a request, or a detach', async () => {
  const dir = await memoryDir('alone');
  const server = await startServer(
    `nbdkit -f -U ${dir}/sock --filter=delay memory 16M wdelay=600`,
    isSocket(`${dir}/sock`),
  );
  const attach = (device: string, more: string) => `${tsnbdClient} -unix ${dir}/sock ${device} --no-persist ${more}`;
  await ok(`${attach('nbd0', '')} && ${attach('nbd1', '-t 3')}`);
  const send = (device: string) =>
    background(`exec dd if=/dev/zero of=/dev/${device} bs=64k count=1 oflag=direct status=none`);
  const [waiting, limited] = [await send('nbd0'), await send('nbd1')];
  for (const device of ['nbd0', 'nbd1']) await until(inFlight(device));
  await server.stop('KILL');
  const failed = { status: 1, stderr: expect.stringContaining('Input/output error') };
  expect(await limited.result).toMatchObject(failed);
  await ok(`sleep 2 && test -d /proc/${waiting.pid} && ${inFlight('nbd0')}`);
  const lost = 'what was written last to /dev/nbd0, whose process is gone, may be lost';
  expect(await run(`${tsnbdClient} -d nbd0`)).toMatchObject({ status: 8, stderr: expect.stringContaining(lost) });
  await ok(`${tsnbdClient} -d nbd0 --force`);
  expect(await waiting.result).toMatchObject(failed);
  await ok(`${tsnbdClient} -d nbd1`);
});
