import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { long } from '../long.js';
import { background, freshDir, ok, run, until, withOwnGuest } from './guest.js';
import {
  type Api,
  command,
  fillSocket,
  find,
  free,
  guardDevices,
  heard,
  hold,
  holders,
  read,
  release,
  say,
  sayAll,
  setUpBy,
} from './held-device.js';

guardDevices();

const ROUNDS = long ? 10 : 2;
/** What only one of them does is in one-api.test.ts. */
const APIS: readonly Api[] = ['ioctl', 'netlink'];

const STEPS: Readonly<Record<Api, readonly string[]>> = {
  ioctl: [
    'open the device',
    'hand over socket 1',
    'set the block size',
    'set the size',
    'set the flags',
    'set the timeout',
    'set the longest request',
    'start the device',
  ],
  netlink: ['look for netlink', 'set the longest request', 'connect the device'],
};

describe.each(APIS)('by %s', (api) => {
  setUpBy(api);

  describe('a device that is set up', () => {
    test('has its size, its thread, its block size and its data, and is free and without partitions afterwards', async () => {
      const holder = await hold({ rescanMs: 5_000 });
      expect(await heard(holder, 'up')).toMatchObject({
        kernelApi: api,
        sizeBytes: 16 * 2 ** 20,
        readOnly: false,
        partitions: [],
      });
      const thread = await ok('cat /sys/block/nbd0/pid');
      await ok(`test -d /proc/${holder.pid}/task/${thread}`);
      // By netlink no thread stays in the kernel: the one that asked is told, and it is the process's first or of its pool.
      expect(await ok('cat /sys/block/nbd0/backend 2>/dev/null || true')).toMatch(
        api === 'netlink' ? new RegExp(`^tsnbd:.*:${holder.pid}:[0-9]+:1$`) : /^$/,
      );
      expect(await ok('cat /sys/block/nbd0/queue/logical_block_size')).toBe('512');

      await ok("printf 'label: dos\\nsize=4M\\n,\\n' | sfdisk -q /dev/nbd0 && udevadm settle || true");
      await ok('test -b /dev/nbd0p1 && test -b /dev/nbd0p2');
      const file = join(freshDir('data'), 'file');
      await ok(`head -c 3000000 /dev/urandom | tee ${file} >/dev/nbd0p2 && sync /dev/nbd0p2`);
      const sum = createHash('sha256').update(readFileSync(file)).digest('hex');
      await ok('echo 3 >/proc/sys/vm/drop_caches');
      expect(await ok('head -c 3000000 /dev/nbd0p2 | sha256sum')).toContain(sum);

      const said = await release(holder);
      expect(find(said, 'ended')).toEqual({ result: 0 });
      expect(find(said, 'server')).toBe('goodbye');
      expect(find(said, 'state')).toMatchObject(free);
      expect(find(said, 'leftFds')).toBe(0);
      await ok('test ! -e /dev/nbd0p1');
    });

    test('leaves nothing to the next: read-only, block size, timeout and longest request are as now told', async () => {
      const settings =
        'cd /sys/block/nbd0; cat ro queue/logical_block_size queue/io_timeout queue/max_sectors_kb queue/fua';
      const first = { blockSizeBytes: 4096, flags: 0x3, requestTimeoutSeconds: 7, requestBytesMax: 65_536 };
      const one = await hold({ setup: first });
      expect(await ok(settings)).toBe('1\n4096\n7000\n64\n0');
      await release(one);
      const two = await hold({});
      expect(await ok(settings)).toBe('0\n512\n30000\n128\n1');
      await release(two);
    });

    test('comes and goes again and again in one process without a trace', async () => {
      const said = await say({ rounds: ROUNDS, rescanMs: 5_000 });
      const ends = said.filter((one) => 'leftFds' in one);
      expect(ends).toHaveLength(ROUNDS);
      for (const end of ends) expect(end).toMatchObject({ leftFds: 0, state: free });
    });

    test('takes two connections if the server allows it', async () => {
      const refused = await say({ connections: 2 });
      expect(refused.find((one) => 'code' in one)).toMatchObject({
        code: 'refused',
        message: 'the server allows one connection, not 2',
      });
      const holder = await hold({ connections: 2, setup: { flags: 0x12d } });
      await ok('dd if=/dev/nbd0 of=/dev/null bs=1M count=4 2>/dev/null');
      const said = await release(holder);
      expect(said.filter((one) => one.server === 'goodbye')).toHaveLength(2);
      expect(find(said, 'leftFds')).toBe(0);
    });
  });

  describe('signals', () => {
    test('of any kind reach the process and leave the device up', async () => {
      const holder = await hold({});
      if (api === 'ioctl') {
        // A signal that reached the thread in NBD_DO_IT would end it. All but SIGKILL, SIGSTOP and the C library's own two.
        const thread = await ok('cat /sys/block/nbd0/pid');
        expect(await ok(`grep SigBlk /proc/${holder.pid}/task/${thread}/status`)).toBe('SigBlk:\tfffffffe7ffbfeff');
      }
      const signals = ['TERM', 'HUP', 'INT', 'USR1', 'WINCH', 'CHLD', 'CONT'];
      await ok(
        `for round in 1 2 3; do for signal in ${signals.join(' ')}; do kill -s $signal ${holder.pid}; done; done`,
      );
      await ok('dd if=/dev/nbd0 of=/dev/null bs=64k iflag=direct 2>/dev/null');
      const said = await release(holder);
      for (const signal of signals) expect(said).toContainEqual({ signal: `SIG${signal}` });
      expect(find(said, 'ended')).toEqual({ result: 0 });
    });
  });

  describe('an attach that fails', () => {
    test('before any of its steps leaves the device free and the next attach works', async () => {
      const steps = (await say({})).flatMap((one) => (typeof one.step === 'string' ? [one.step] : []));
      expect(steps).toEqual(STEPS[api]);
      for (const said of await sayAll(steps.map((step) => ({ failBefore: step })))) {
        expect(said).toContainEqual({ code: null, message: 'failed as asked' });
        expect(find(said, 'undone')).toEqual([]);
        expect(said.at(-1)).toMatchObject({ leftFds: 0, state: free });
      }
      expect(find(await say({}), 'ended')).toEqual({ result: 0 });
    });

    test('after its last step is undone with a goodbye to the server', async () => {
      const said = await say({ patienceMs: 0, manner: 'never closes' });
      expect(find(said, 'server')).toBe('goodbye');
      expect(find(said, 'undone')).toEqual([]);
      expect(find(said, 'tookMs')).toBeLessThan(30_000);
      expect(find(said, 'state')).toMatchObject(free);
    });

    test('is told as what it is when the server closes at once', async () => {
      const said = await say({ manner: 'closes', rescanMs: 5_000 });
      const failure = said.find((one) => 'code' in one);
      // Up for a moment, or never: by which thread is faster.
      if (find(said, 'up') === undefined) expect(failure?.message).toContain('the server closed the connection');
      expect(said.at(-1)).toMatchObject({ leftFds: 0, state: free });
    });

    test('because of a size or block size that cannot be is refused with a reason', async () => {
      const cases = [
        [{ blockSizeBytes: 8192 }, 'the kernel refuses blocks of 8192 bytes on /dev/nbd0'],
        [{ blockSizeBytes: 3 }, 'a device cannot have blocks of 3 bytes'],
        [{ blockSizeBytes: 256 }, 'a device cannot have blocks of 256 bytes'],
        [{ sizeBytes: 1000 }, 'a device of blocks of 512 bytes cannot have 1000 bytes'],
        [{ sizeBytes: 0 }, 'a device of blocks of 512 bytes cannot have 0 bytes'],
        [{ requestBytesMax: 511 }, 'requests of at most 511 bytes do not hold a block of 512'],
      ] as const;
      const answers = await sayAll(cases.map(([setup]) => ({ setup })));
      for (const [index, said] of answers.entries()) {
        const failure = said.find((one) => 'code' in one);
        expect(failure).toMatchObject({ code: 'refused' });
        expect(failure?.message).toContain(cases[index]?.[1]);
        expect(said.at(-1)).toMatchObject({ leftFds: 0, state: free });
      }
    });
  });

  describe('a device that is not to be had', () => {
    test('is busy while it is up, and stays as it is', async () => {
      const holder = await hold({});
      const failure = (await say({})).find((one) => 'code' in one);
      expect(failure).toMatchObject({ code: 'busy' });
      expect(failure?.message).toMatch(
        /^\/dev\/nbd0 is not free: it is attached by process or thread [0-9]+; detach it/,
      );
      await ok('dd if=/dev/nbd0 of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null');
      expect(find(await release(holder), 'ended')).toEqual({ result: 0 });
    });

    test('is busy while a program keeps it open from its last use, and its server is let go', async () => {
      const holder = await hold({});
      const keeper = await background('exec sleep 100 </dev/nbd0');
      holders.push(keeper);
      expect(find(await release(holder), 'ended')).toEqual({ result: 0 });
      await ok('test -e /sys/block/nbd0/pid');
      expect((await say({})).find((one) => 'code' in one)).toMatchObject({ code: 'busy' });
      await keeper.stop();
      expect(find(await say({}), 'ended')).toEqual({ result: 0 });
    });
  });

  test('a flush tells what the server did not take, once', async () => {
    const holder = await hold({ manner: 'fails writes', flushes: 2 });
    await ok('dd if=/dev/zero of=/dev/nbd0 bs=64k count=4 2>/dev/null');
    const said = (await release(holder)).flatMap((one) => ('flush' in one ? [one.flush] : []));
    expect(said[0]).toMatchObject({ kind: 'lost', why: expect.stringContaining('Input/output error') });
    expect(said[1]).toEqual({ kind: 'done' });
    const good = await hold({ flushes: 1 });
    await ok('dd if=/dev/zero of=/dev/nbd0 bs=64k count=4 2>/dev/null');
    expect(await release(good)).toContainEqual({ flush: { kind: 'done' } });
  });

  describe('a server that does not answer', () => {
    test('holds neither the reading of partitions up for longer than its limit, nor the end', async () => {
      const said = await say({ manner: 'mute', rescanMs: 500, patienceMs: 100 });
      expect(said.find((one) => 'code' in one)).toEqual({
        code: 'time-limit',
        message: 'the server did not answer in 0.5 s when the kernel read the partition table of /dev/nbd0',
      });
      // The kernel waits for the server to close, by ioctl; by netlink it closes itself (nbd_disconnect_and_put).
      if (api === 'ioctl') expect(find(said, 'ended')).toBe('not yet');
      expect(find(said, 'undone')).toEqual([]);
      expect(find(said, 'tookMs')).toBeLessThan(30_000);
      // The child that was given up has the device open until it has ended.
      await until('! test -e /sys/block/nbd0/pid && test "$(cat /sys/block/nbd0/size)" = 0');
    });

    test('does not keep who reads the partitions itself, and is to leave a device that netlink set up', async () => {
      if (api === 'ioctl') return; // there nobody leaves it
      const said = await say({ manner: 'mute', rescanMs: 500, rescanHere: true });
      expect(said.find((one) => 'code' in one)).toEqual({
        code: 'time-limit',
        message: 'the server did not answer in 0.5 s when the kernel read the partition table of /dev/nbd0',
      });
      expect(find(said, 'ended')).toEqual({ result: 0 });
      await until('! test -e /sys/block/nbd0/pid && test "$(cat /sys/block/nbd0/size)" = 0');
    });

    test('with its socket full blocks the goodbye, not the process', async () => {
      const patienceMs = api === 'ioctl' ? 1_000 : 20_000;
      const holder = await hold({ manner: 'stalls at a write', patienceMs });
      const writer = await fillSocket();
      // Nor is anybody else's netlink held up, who gives up after 10 s.
      const [said, another] = await Promise.all([release(holder), say({ device: 'nbd1' })]);
      expect(find(another, 'ended')).toEqual({ result: 0 });
      expect(find(said, 'disconnectMs')).toBeLessThan(10_000);
      // By netlink a goodbye that would wait, with the lock of all of generic netlink, is not sent.
      expect(find(said, 'ended')).toEqual(api === 'ioctl' ? 'not yet' : { result: 0 });
      expect(find(said, 'undone')).toEqual([]);
      expect((await writer.result).stderr).toContain('Input/output error');
    });
  });
});

describe('a device that is not to be had', () => {
  test('is not for ordinary users, who are told so first', async () => {
    const { stdout } = await run(`setpriv --reuid 65534 --clear-groups --bounding-set -all ${command({})}`);
    expect(read(stdout)).toContainEqual({ code: 'not-root', message: 'only root can attach /dev/nbd0; try sudo' });
  });

  test('needs the module', async () => {
    await withOwnGuest({ nbd: 'none' }, async (guest) => {
      const failure = async () => read((await guest.run(command({}))).stdout).find((one) => 'code' in one);
      expect(await failure()).toMatchObject({
        code: 'no-module',
        message: 'the nbd module is not loaded; load it with: modprobe nbd max_part=8',
      });
      expect((await guest.run('modprobe nbd max_part=0 nbds_max=1')).status).toBe(0);
      expect(await failure()).toBe(undefined);
    });
  });
});

describe('a device of another program', () => {
  test('that was set up by ioctl is flushed and freed', async () => {
    const holder = await hold({});
    expect(await say({ foreign: false })).toEqual([]);
    const { stdout } = await holder.result;
    expect(find(read(stdout), 'server')).toBe('goodbye');
    expect(find(read(stdout), 'ended')).toEqual({ result: 0, byOther: true });
  });

  test('is freed even if its server does not close', async () => {
    const holder = await hold({ manner: 'never closes' });
    expect(await say({ foreign: true })).toEqual([]);
    expect(find(read((await holder.result).stdout), 'ended')).toEqual({ result: 0, byOther: true });
  });

  test('that was set up by netlink is freed', async () => {
    const socket = join(freshDir('nbdkit'), 'socket').replace(/^.*\//, '/tmp/nbdkit-');
    const server = await background(`exec nbdkit -f -U ${socket} memory 16M`);
    holders.push(server);
    await until(`test -S ${socket}`);
    await ok(`nbd-client -unix ${socket} /dev/nbd0`);
    await until('test "$(cat /sys/block/nbd0/size)" = 32768');
    expect((await say({})).find((one) => 'code' in one)).toMatchObject({ code: 'busy' });
    expect(await say({ foreign: false })).toEqual([]);
  });

  test('that does not take the last writes stays, unless forced', async () => {
    const holder = await hold({ manner: 'fails writes' });
    await ok('dd if=/dev/zero of=/dev/nbd0 bs=64k count=4 2>/dev/null');
    expect((await say({ foreign: false })).find((one) => 'code' in one)?.message).toContain('(EIO)');
    expect(await ok('cat /sys/block/nbd0/size')).toBe('32768');
    expect(await say({ foreign: true })).toEqual([]);
    await holder.result;
  });
});

describe('users of a device', () => {
  test('are mounts, swap and loop devices, whatever path was used', async () => {
    const holder = await hold({});
    await ok("printf 'label: dos\\nsize=4M\\nsize=4M\\nsize=4M\\n' | sfdisk -q /dev/nbd0");
    await ok("mkdir -p '/tmp/a b' && mkfs.ext4 -q /dev/nbd0p1 && mount /dev/nbd0p1 '/tmp/a b'");
    await ok('mkswap -q /dev/nbd0p2 && ln -s /dev/nbd0p2 /dev/swaplink && swapon /dev/swaplink');
    const loop = (await ok('modprobe loop; losetup -f --show /dev/nbd0p3')).replace('/dev/', '');
    // Nobody's claim: the name is all that a tmpfs has of a device.
    await ok('mkdir -p /tmp/named && mount -t tmpfs /dev/nbd0 /tmp/named');
    expect(find(await say({ users: '' }), 'users')).toEqual([
      { kind: 'mount', device: 'nbd0p1', mountPoint: '/tmp/a b', fileSystem: 'ext4' },
      { kind: 'swap', device: 'nbd0p2' },
      { kind: 'holder', device: 'nbd0p3', holder: loop },
    ]);
    await ok(`umount '/tmp/a b' /tmp/named; swapoff /dev/nbd0p2; losetup -d /dev/${loop}; rm /dev/swaplink`);
    await until(`! test -e /sys/block/${loop}/loop/backing_file`);
    expect(find(await say({ users: '' }), 'users')).toEqual([]);
    await release(holder);
  });

  test('are mounts in the namespace of another process', async () => {
    const holder = await hold({});
    await ok('mkfs.ext4 -q /dev/nbd0 && mkdir -p /tmp/hidden');
    const other = await background("exec unshare -m sh -c 'mount /dev/nbd0 /tmp/hidden && echo up && exec sleep 100'");
    holders.unshift(other);
    await expect.poll(() => other.output().stdout, { timeout: 60_000 }).toBe('up\n');
    await ok('! grep -q /tmp/hidden /proc/mounts');
    expect(find(await say({ users: '' }), 'users')).toEqual([
      { kind: 'mount', device: 'nbd0', mountPoint: '/tmp/hidden', fileSystem: 'ext4' },
    ]);
    await other.stop();
    await release(holder);
  });

  test('are file systems whose device number is made up, by their source', async () => {
    const root = '/tmp/btrfs-tree';
    await ok(`mkdir -p ${root}/dev ${root}/proc/self/ns ${root}/sys/block/nbd0 && cd ${root} &&
      mknod dev/nbd0 b 43 0 && ln -s nbd0 dev/label && echo 43:0 >sys/block/nbd0/dev && ln -s 'mnt:[1]' proc/self/ns/mnt &&
      printf 'nodev\\ttmpfs\\n\\tbtrfs\\n' >proc/filesystems &&
      printf '9 8 0:40 / /mnt rw - btrfs /dev/label rw\\n9 8 0:41 / /t rw - tmpfs /dev/label rw\\n' >proc/self/mountinfo`);
    expect(find(await say({ users: root }), 'users')).toEqual([
      { kind: 'mount', device: 'nbd0', mountPoint: '/mnt', fileSystem: 'btrfs' },
    ]);
  });
});
