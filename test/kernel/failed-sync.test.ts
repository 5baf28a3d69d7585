import { afterEach, expect, test } from 'vitest';
import { long } from '../long.js';
import { assertQuietKernel, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbd } from './programs.js';
import { attached, dropStorage, loopDevice, mappedDevice, swapTable } from './storage.js';

afterEach(async () => {
  await dropStorage();
  await expectNothingLeft();
  await assertQuietKernel();
});

const DEVICES = ['/dev/nbd0', '/dev/nbd1'];
/** Of the server, or the process behind a device: each worker that has had several calls done at a time has one. */
const COUNT_RINGS = 'ls -l /proc/$(pgrep -of dist/tsnbd.js)/fd | grep -c io_uring';

/** A disk that can be made to fail, and two devices of two connections to one server of it. */
async function twoDevices(cache: string, format = 'raw') {
  const below = await loopDevice('32M');
  if (format === 'qcow2') await ok(`qemu-img create -q -f qcow2 -o preallocation=metadata ${below} 16M`);
  const disk = await mappedDevice('failing', below, `linear ${below} 0`);
  const socket = `${disk.replace('/dev/mapper', '/run')}.socket`;
  const server = await startServer(
    `${tsnbd} -k ${socket} -e 2 -f ${format} --cache=${cache} ${disk}`,
    isSocket(socket),
  );
  for (const device of DEVICES) await ok(`nbd-client -L -unix ${socket} ${device}`);
  await until('test -e /sys/block/nbd0/pid && test -e /sys/block/nbd1/pid');
  return {
    disk,
    server,
    fail: () => swapTable('failing', below, 'error'),
    heal: () => swapTable('failing', below, `linear ${below} 0`),
    detach: () => ok(DEVICES.map((device) => `nbd-client -L -d ${device}`).join(' && ')),
  };
}

const write = (device: string, how: string) =>
  `dd if=/dev/urandom of=${device} bs=64k count=16 oflag=direct${how} status=none`;

/** The disk is well again, but what it lost may be anybody's: by neither device is a flush or a write acknowledged. */
async function expectNothingDurable(): Promise<void> {
  const wanted = DEVICES.flatMap((device) => {
    return [`sync ${device}`, write(device, ''), write(device, ',dsync'), `sync -d ${device}`];
  });
  const script = wanted.map((command) => `${command} && echo '${command} said that all is well' || true`);
  expect(await ok(script.join('\n'))).toBe('');
  await ok(
    DEVICES.map((device) => `dd if=${device} of=/dev/null bs=64k count=16 iflag=direct status=none`).join(' && '),
  );
}

test.each(['raw', 'qcow2'])(
  'one failed fsync, and nothing is durable again by any connection, until the %s image is opened again',
  async (format) => {
    const { disk, server, fail, heal, detach } = await twoDevices('writeback', format);
    // After the second slow flush a connection flushes beside other requests.
    const flushes = DEVICES.map((device) => `${write(device, '')} && sync ${device}`).join(' && ');
    await ok(`for flush in 1 2 3; do ${flushes}; done`);
    expect(await ok(COUNT_RINGS)).toBe('2');
    await fail();
    // It goes into the server's page cache, where the kernel takes it for good.
    await ok(write('/dev/nbd0', ''));
    expect((await run('sync /dev/nbd1')).stderr).toMatch(/Input\/output error/);
    await heal();
    await expectNothingDurable();
    await detach();
    const { status, stderr } = await server.result;
    expect(stderr).toMatch(/could not be flushed: .*I\/O error/i);
    expect(status).toBe(1);

    const again = await attached(`-f ${format} ${disk}`);
    await ok(`${write('/dev/nbd0', '')} && sync /dev/nbd0 && ${write('/dev/nbd0', ',dsync')}`);
    expect((await again.stop()).status).toBe(0);
  },
);

const CACHE_MODES = long ? ['writeback', 'none'] : ['none'];
test.each(CACHE_MODES)('a durable write (FUA) that fails is as bad, with --cache=%s', async (cache) => {
  const { server, fail, heal, detach } = await twoDevices(cache);
  await ok(write('/dev/nbd0', ',dsync'));
  await fail();
  expect((await run(write('/dev/nbd0', ',dsync'))).stderr).toMatch(/Input\/output error/);
  await heal();
  await expectNothingDurable();
  await detach();
  await server.result;
});

test.each(['--cache=writeback', '--cache=none'])(
  'a disk with a bad block, %s: what cannot be read is an error, never other bytes, and all else is right',
  async (cache) => {
    const below = await loopDevice('16M');
    await ok(`dd if=/dev/urandom of=${below} bs=1M status=none; cp ${below} /tmp/expected; true`);
    // So slow that on no machine it is taken for the page cache.
    const slow = await mappedDevice('slow', below, `delay ${below} 0 1`);
    const disk = await mappedDevice('dusty', slow, `dust ${slow} 0 4096`);
    await ok('dmsetup message dusty 0 addbadblock 1000 && dmsetup message dusty 0 enable');
    const attachment = await attached(`${cache} ${disk}`);
    const read = (blocks: number, block: number) =>
      `dd if=/dev/nbd0 bs=${blocks * 4}k count=1 skip=${block / blocks} iflag=direct`;
    const same = (blocks: number, block: number) =>
      ok(`${read(blocks, block)} status=none | cmp -n ${blocks * 4096} -i 0:${block * 4096} - /tmp/expected`);
    for (const blocks of [1, 8, 40]) {
      expect((await run(`${read(blocks, 1000)} of=/dev/null status=none`)).stderr).toMatch(/Input\/output error/);
    }
    await same(40, 960);
    await same(1, 999);
    await same(1, 1001);
    // Many at a time, which the kernel reads beside each other.
    await ok('echo 3 >/proc/sys/vm/drop_caches');
    const deep = '--ioengine=libaio --direct=1 --rw=randread --bs=4k --iodepth=32 --continue_on_error=read';
    const fio = await ok(`fio --name=deep --filename=/dev/nbd0 ${deep} --output-format=json`);
    const [{ total_err: errors, read: reads }] = JSON.parse(fio.slice(fio.indexOf('{'))).jobs;
    expect({ errors, reads: reads.total_ios }).toEqual({ errors: 1, reads: 4_096 });
    expect(await ok(COUNT_RINGS)).toBe('1');
    const around = Array.from({ length: 32 }, (_, index) => 984 + index).filter((block) => block !== 1_000);
    await ok('echo 3 >/proc/sys/vm/drop_caches');
    await Promise.all(around.map((block) => same(1, block)));
    // A write gives the disk a good block for the bad one.
    await ok('dd if=/tmp/expected of=/dev/nbd0 bs=4k count=1 skip=1000 seek=1000 oflag=direct,dsync conv=notrunc');
    await same(40, 1000);
    expect((await attachment.stop()).status).toBe(0);
    await ok(`cmp ${below} /tmp/expected && rm /tmp/expected`);
  },
);
