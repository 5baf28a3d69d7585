import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { background, freshDir, ok, run, until } from './guest.js';
import {
  command,
  fillSocket,
  find,
  guardDevices,
  heard,
  hold,
  holders,
  read,
  release,
  say,
  setUpBy,
} from './held-device.js';

// What only one of the kernel's interfaces can do or suffer; each group says what in drivers/block/nbd.c makes it so.

guardDevices();

// nbd_start_device_ioctl: what NBD_DO_IT holds ends with the thread that called it.
describe('by ioctl', () => {
  setUpBy('ioctl');

  test('SIGKILL leaves the device free, whatever had not been written', async () => {
    const holder = await hold({});
    await ok('dd if=/dev/zero of=/dev/nbd0 bs=1M count=8 2>/dev/null');
    await holder.stop('KILL');
    await until('test "$(cat /sys/block/nbd0/size)" = 0 && test ! -e /sys/block/nbd0/pid');
    expect(find(await say({}), 'ended')).toEqual({ result: 0 });
  });

  test('SIGKILL leaves the device free even while the kernel waits to send to a server in the same process', async () => {
    const holder = await hold({ manner: 'stalls at a write' });
    const writer = await fillSocket();
    await holder.stop('KILL');
    await ok(`! test -d /proc/${holder.pid}`);
    expect((await writer.result).stderr).toContain('Input/output error');
    expect(find(await say({}), 'ended')).toEqual({ result: 0 });
  });

  // task_setup and nbd_open: a set-up is several calls by one thread, on a device that it has open.
  test('is busy while another program sets it up, who is not disturbed', async () => {
    const goOn = join(freshDir('pause'), 'go-on');
    const holder = await hold({ pauseBefore: 'set the size', goOn }, 'paused');
    expect((await say({ setup: { sizeBytes: 2 ** 20 } })).find((one) => 'code' in one)).toMatchObject({
      code: 'busy',
      message: '/dev/nbd0 is busy: another program is setting it up',
    });
    await ok(`touch ${goOn}`);
    expect(await heard(holder, 'up')).toMatchObject({ sizeBytes: 16 * 2 ** 20 });
    await ok('dd if=/dev/nbd0 of=/dev/null bs=1M iflag=direct 2>/dev/null');
    expect(find(await release(holder), 'ended')).toEqual({ result: 0 });
  });

  // nbd_open finds what nbd_dev_add made: the open of a device that is not there makes none.
  test('does not exist beyond nbds_max', async () => {
    expect((await say({ device: 'nbd9' })).find((one) => 'code' in one)).toMatchObject({ code: 'no-device' });
  });
});

describe('by netlink', () => {
  setUpBy('netlink');

  // nbd_genl_connect: a device that anybody has open has a configuration, and gets no other.
  test('waits for who has the device open for a moment, not for who keeps it', async () => {
    const glance = await background('exec sleep 2 </dev/nbd0');
    const keeper = await background('exec sleep 100 </dev/nbd1');
    holders.push(glance, keeper);
    const holder = await hold({});
    expect(await glance.result).toMatchObject({ status: 0 });
    expect((await say({ device: 'nbd1' })).find((one) => 'code' in one)).toEqual({
      code: 'busy',
      message: '/dev/nbd1 is busy: another program has it open, or connected it just now',
    });
    expect(find(await release(holder), 'ended')).toEqual({ result: 0 });
  });

  // nbd_find_get_unused and nbd_dev_add.
  test('lets the kernel choose, for two at once never the same, and makes a device that is not there', async () => {
    const [one, two] = await Promise.all([hold({ device: null }), hold({ device: null })]);
    const names = [await heard(one, 'up'), await heard(two, 'up')].map((up) => (up as { device: string }).device);
    expect(names.toSorted()).toEqual(['nbd0', 'nbd1']);
    await ok('test ! -e /sys/block/nbd9');
    const three = await hold({ device: 'nbd9', setup: { requestBytesMax: 65_536 } });
    expect(await ok('cat /sys/block/nbd9/queue/max_sectors_kb; blockdev --getsize64 /dev/nbd9')).toBe('64\n16777216');
    for (const holder of [one, two, three]) expect(find(await release(holder), 'ended')).toEqual({ result: 0 });
    expect(await ok('cat /sys/block/nbd9/size')).toBe('0');
  });

  // nbd_genl_connect: the configuration holds the sockets, not the process that gave them.
  test('SIGSTOP leaves the device up, and SIGKILL too, marked as that of a dead process', async () => {
    const holder = await hold({});
    await ok(`kill -s STOP ${holder.pid}; sleep 1.5; kill -s CONT ${holder.pid}`);
    await ok('dd if=/dev/nbd0 of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null');
    await holder.stop('KILL');
    expect(await ok('cat /sys/block/nbd0/backend')).toContain(`:${holder.pid}:`);
    expect(await ok('cat /sys/block/nbd0/size')).toBe('32768');
    expect((await say({})).find((one) => 'code' in one)).toMatchObject({ code: 'busy' });
    expect(await say({ leftover: true })).toEqual([]);
    await ok('! test -e /sys/block/nbd0/pid');
    // Nobody's mark, and that of a living process, are no leftovers.
    const living = await hold({});
    expect(await say({ leftover: true })).toEqual([]);
    expect(find(await release(living), 'ended')).toEqual({ result: 0 });
  });

  test('SIGKILL ends the process while the kernel waits to send to a server in it, and what waits fails at the disconnect', async () => {
    const holder = await hold({ manner: 'stalls at a write' });
    const writer = await fillSocket();
    await holder.stop('KILL');
    await ok(`! test -d /proc/${holder.pid}`);
    // Not by ioctl: the open would wait for what is on its way (bdev_disk_changed: sync_blockdev).
    expect(await say({ leftover: true })).toEqual([]);
    expect((await writer.result).stderr).toContain('Input/output error');
  });

  // nbd_genl_disconnect: it asks nobody whose the device is.
  test('a device that was disconnected by another program is not disconnected again, whoever has it then', async () => {
    const holder = await hold({});
    await ok(`kill -s STOP ${holder.pid}; nbd-client -d /dev/nbd0`);
    await until('! test -e /sys/block/nbd0/pid');
    const next = await hold({});
    await ok(`kill -s CONT ${holder.pid}`);
    expect(find(await release(holder), 'ended')).toEqual({ result: 0, byOther: true });
    expect(await ok('cat /sys/block/nbd0/size; dd if=/dev/nbd0 bs=64k count=4 iflag=direct 2>/dev/null | wc -c')).toBe(
      '32768\n262144',
    );
    expect(find(await release(next), 'ended')).toEqual({ result: 0 });
  });

  // nbd_genl_family: without netnsok, as on Linux 6.1, it is in the first network namespace only.
  test('is not to be had where the network namespace has no family, and then auto is ioctl', async () => {
    const inOther = async (kernelApi: string) => read((await run(`unshare -n ${command({ kernelApi })}`)).stdout);
    const asked = await inOther('netlink');
    const chosen = (find(await inOther('auto'), 'up') as { kernelApi: string }).kernelApi;
    const found = asked.find((one) => 'code' in one);
    expect(chosen).toBe(found === undefined ? 'netlink' : 'ioctl');
    if (found !== undefined) expect(found).toMatchObject({ code: 'refused' });
  });
});
