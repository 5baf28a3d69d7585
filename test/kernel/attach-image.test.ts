import { afterEach, describe, expect, test, vi } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run, until, withOwnGuest } from './guest.js';
import {
  expectFree,
  expectNothingLeft,
  isSocket,
  newImage,
  pidBehind,
  ROOT,
  startServer,
  TWO_PARTITIONS,
  tsnbd,
  tsnbdClient,
  tsnbdHere,
} from './programs.js';
import { attached } from './storage.js';

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

describe('an attached image', () => {
  test('is a disk: partitions, file systems, files that are the same after it was attached again', async () => {
    const image = await newImage('400M');
    const dir = await memoryDir('mount');
    expect(await run(`${tsnbd} -c /dev/nbd0 -f raw ${image}`)).toEqual({ status: 0, stdout: '', stderr: '' });
    await ok(`${TWO_PARTITIONS} | sfdisk -q /dev/nbd0`);
    await until('test -b /dev/nbd0p2');
    await ok('mkfs.ext4 -q /dev/nbd0p1 && mkfs.ext4 -q /dev/nbd0p2');
    await ok(`mkdir ${dir}/1 ${dir}/2 && mount /dev/nbd0p1 ${dir}/1 && mount /dev/nbd0p2 ${dir}/2`);
    await ok(`head -c 200000000 /dev/urandom >${dir}/2/random && echo small >${dir}/1/small`, { limitMs: 400_000 });
    const sums = await ok(`cd ${dir} && sha256sum 2/random 1/small`);
    await ok(`umount ${dir}/1 ${dir}/2`);
    expect(await run(`${tsnbd} -d /dev/nbd0`)).toEqual({ status: 0, stdout: '/dev/nbd0 disconnected\n', stderr: '' });
    await expectFree();

    expect(await ok(`${tsnbd} -c nbd0 -f raw ${image} && ls /dev/nbd0p* && cat /sys/block/nbd0/ro`)).toBe(
      '/dev/nbd0p1\n/dev/nbd0p2\n0',
    );
    await ok(`mount -o ro /dev/nbd0p1 ${dir}/1 && mount -o ro /dev/nbd0p2 ${dir}/2`);
    expect(await ok(`cd ${dir} && sha256sum 2/random 1/small`)).toBe(sums);
    await ok(`umount ${dir}/1 ${dir}/2 && ${tsnbd} -d nbd0`);

    // The same bytes by another client, of our server.
    const server = await startServer(`${tsnbd} -k ${dir}/sock -f raw ${image}`, isSocket(`${dir}/sock`));
    await ok(`nbd-client -L -unix ${dir}/sock /dev/nbd0`);
    await until('test -e /sys/block/nbd0/pid && : </dev/nbd0 && test -b /dev/nbd0p2');
    await ok(`mount -o ro /dev/nbd0p1 ${dir}/1 && mount -o ro /dev/nbd0p2 ${dir}/2`);
    expect(await ok(`cd ${dir} && sha256sum 2/random 1/small`)).toBe(sums);
    await ok(`umount ${dir}/1 ${dir}/2 && nbd-client -L -d /dev/nbd0 && rm ${image}`);
    expect((await server.result).status).toBe(0);
  });

  test('keeps what was written without a sync: detaching writes it first, and lets the image go', async () => {
    const image = await newImage('64M');
    await ok(`${tsnbd} -c /dev/nbd0 -f raw ${image}`);
    const server = await pidBehind('nbd0');
    await ok('head -c 33554432 /dev/urandom >random && dd if=random of=/dev/nbd0 bs=1M status=none', { cwd: '/tmp' });
    await ok(`test -e /proc/${server}/fd/0 && ${tsnbd} -d /dev/nbd0 && ! test -e /proc/${server}/fd/0`);
    await ok(`cmp -n 33554432 /tmp/random ${image}`);

    // A partition that is open has pages of its own, which no close has written yet.
    await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
    const attachment = await attached(image);
    const holder = await background('exec sleep 4 </dev/nbd0p1');
    await ok('dd if=/tmp/random of=/dev/nbd0p1 bs=1M count=8 conv=notrunc status=none');
    expect((await attachment.stop()).status).toBe(0);
    await ok(`cmp -n 8388608 -i 0:1048576 /tmp/random ${image} && rm /tmp/random`);
    await holder.result;
  });

  test('is not detached while a file system, swap or another device uses it, unless forced', async () => {
    const image = await newImage('200M');
    const dir = await memoryDir('mount');
    await ok(`${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
    await attached(image);
    await ok(`mkfs.ext4 -q /dev/nbd0p1 && mount /dev/nbd0p1 ${dir}`);
    await ok('mkswap /dev/nbd0p2 >/dev/null && swapon /dev/nbd0p2');
    const inUse = (how: string) => ({
      status: 5,
      stdout: '',
      stderr: `tsnbd: /dev/nbd0 is in use: ${how} (--force detaches it all the same)\n`,
    });
    const mounted = `/dev/nbd0p1 is mounted on ${dir}`;
    expect(await run(`${tsnbd} -d /dev/nbd0`)).toEqual(inUse(`${mounted}, /dev/nbd0p2 is swap space`));
    await ok('swapoff /dev/nbd0p2');
    expect(await run(`${tsnbd} -d /dev/nbd0`)).toEqual(inUse(mounted));
    await ok(`umount ${dir} && modprobe loop && losetup /dev/loop7 /dev/nbd0p1`);
    expect((await run(`${tsnbd} -d /dev/nbd0`)).status).toBe(5);
    await ok('losetup -d /dev/loop7');
    await ok(`mount /dev/nbd0p1 ${dir}`);
    expect(await run(`${tsnbd} -d --force /dev/nbd0`)).toEqual({
      status: 5,
      stdout: '',
      stderr: `tsnbd: /dev/nbd0 is cut off, but not free until nothing uses it: ${mounted}\n`,
    });
    await ok(`umount ${dir}`);
  });

  test('reads an odd size rounded up, and a write into the tail grows the file', async () => {
    const image = await newImage('5000');
    const attachment = await attached(image);
    expect(await ok('blockdev --getsize64 /dev/nbd0; tail -c 120 /dev/nbd0 | tr -d "\\0" | wc -c')).toBe('5120\n0');
    await ok('printf end | dd of=/dev/nbd0 bs=1 seek=5117 conv=notrunc,fsync status=none');
    const { status, stderr } = await attachment.stop();
    expect(stderr).toMatch(/^tsnbd: .*5000.*5120.*\n$/);
    expect(status).toBe(0);
    expect(await ok(`stat -c %s ${image}; tail -c 3 ${image}`)).toBe('5120\nend');
  });

  test('that was attached read-only refuses writes', async () => {
    const image = await newImage('4M');
    const attachment = await attached(`-r ${image}`);
    expect(await ok('cat /sys/block/nbd0/ro')).toBe('1');
    expect((await run('dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1 oflag=direct')).status).not.toBe(0);
    expect((await attachment.stop()).status).toBe(0);
  });

  test('on a full disk answers that there is no space, and goes on', async () => {
    const dir = await memoryDir('full');
    await ok(`mount -t tmpfs -o size=2m tmpfs ${dir} && truncate -s 16M ${dir}/disk.raw`);
    const attachment = await attached(`${dir}/disk.raw`);
    const { status, stderr } = await run('dd if=/dev/urandom of=/dev/nbd0 bs=1M count=8 oflag=direct');
    expect(status).not.toBe(0);
    // The server answers ENOSPC (test/server); this kernel's driver makes an I/O error of every error.
    expect(stderr).toMatch(/No space left on device|Input\/output error/);
    await ok('dd if=/dev/nbd0 of=/dev/null bs=64k count=1 iflag=direct');
    // Nobody else is there to be told.
    const failed = /^tsnbd: [1-9]\d* writes to \/dev\/nbd0 failed while it was attached\n$/;
    expect(await attachment.stop()).toMatchObject({ status: 0, stderr: expect.stringMatching(failed) });
    await ok(`umount ${dir}`);
  });

  test('is a qcow2 on another: what is written is there, and QEMU finds it in order', async () => {
    const dir = await memoryDir('qcow2');
    await ok(`qemu-img create -q -f qcow2 ${dir}/base 64M && qemu-io -c 'write -P 7 0 64M' ${dir}/base >/dev/null`);
    await ok(`qemu-img create -q -f qcow2 -b base -F qcow2 ${dir}/disk 64M`);
    const attachment = await attached(`-f qcow2 ${dir}/disk`);
    await ok(`mkfs.ext4 -q /dev/nbd0 && mkdir ${dir}/mnt && mount /dev/nbd0 ${dir}/mnt`);
    await ok(`head -c 8M /dev/urandom >${dir}/mnt/file && sha256sum <${dir}/mnt/file >${dir}/sum`);
    await ok(`head -c 8M /dev/urandom >${dir}/mnt/gone && sync && rm ${dir}/mnt/gone && fstrim ${dir}/mnt`);
    await ok(`umount ${dir}/mnt`);
    expect((await attachment.stop()).status).toBe(0);
    await ok(`qemu-img check -q ${dir}/disk && qemu-img convert -O raw ${dir}/disk ${dir}/raw`);
    await ok(
      `modprobe loop && mount -o ro,loop ${dir}/raw ${dir}/mnt && sha256sum <${dir}/mnt/file | cmp - ${dir}/sum && umount ${dir}/mnt`,
    );
    await ok(`rm ${dir}/base ${dir}/disk ${dir}/raw`);
  });

  test('with -s, on a snapshot: what is written is gone when it is detached, and the image as it was', async () => {
    const dir = await memoryDir('qcow2');
    await ok(`mkdir ${dir}/overlays && qemu-img create -q -f qcow2 ${dir}/disk 16M`);
    await ok(`qemu-io -c 'write -P 7 0 1M' ${dir}/disk >/dev/null && qemu-img snapshot -c one ${dir}/disk`);
    await ok(`qemu-io -c 'write -P 8 0 1M' ${dir}/disk >/dev/null && sha256sum ${dir}/disk >${dir}/sum`);
    await ok(`TMPDIR=${dir}/overlays ${tsnbd} -c /dev/nbd0 -s -l one -f qcow2 ${dir}/disk`);
    expect(await ok('head -c 1048576 /dev/nbd0 | tr -d "\\7" | wc -c')).toBe('0');
    await ok(`head -c 8M /dev/urandom >${dir}/new && dd if=${dir}/new of=/dev/nbd0 bs=1M oflag=direct status=none`);
    await ok(`dd if=/dev/nbd0 bs=1M count=8 iflag=direct status=none | cmp - ${dir}/new && ${tsnbd} -d /dev/nbd0`);
    await ok(`sha256sum -c --status ${dir}/sum && rmdir ${dir}/overlays && rm ${dir}/disk ${dir}/new`);
  });

  test('takes a discard of 5 GiB', async () => {
    const image = await newImage('5G');
    const attachment = await attached(image);
    await ok('dd if=/dev/urandom of=/dev/nbd0 bs=1M count=8 oflag=direct status=none && blkdiscard /dev/nbd0');
    expect(Number(await ok(`du -k ${image} | cut -f1`))).toBeLessThan(100);
    expect((await attachment.stop()).status).toBe(0);
  });

  test.each(['ioctl', 'netlink'])(
    'takes no processor while nobody uses it, and ends when another disconnects it (%s)',
    async (api) => {
      const image = await newImage('16M');
      await ok(`${tsnbd} --kernel-api=${api} -c /dev/nbd0 -f raw ${image}`);
      const pid = await pidBehind('nbd0');
      // Whoever wakes each second is seen. V8 collects garbage once more when a program has become quiet.
      const turns = `cat /proc/${pid}/task/*/status | awk '/ctxt_switches/ { sum += $2 } END { print sum }'`;
      await until(`before=$(${turns}); sleep 2.5; test $(${turns}) = $before`);
      await ok('nbd-client -d /dev/nbd0');
      await expectFree();
      await until(`! test -e /proc/${pid}/fd/0`);
    },
  );

  test('stays while its process is asked to end, until it is unmounted', async () => {
    const image = await newImage('64M');
    const dir = await memoryDir('mount');
    await ok(`${tsnbd} -c /dev/nbd0 -f raw ${image} && mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 ${dir}`);
    await ok('pkill -HUP -f attach-process.js; pkill -TERM -f attach-process.js; sleep 1');
    await ok(`echo kept >${dir}/file && sync`);
    await ok(`umount ${dir}`);
    await expectFree();
    await ok(`modprobe loop && mount -o loop ${image} ${dir} && grep -q kept ${dir}/file && umount ${dir}`);
  });

  test('whose process was killed while a sync waited for it, makes room for the next attach', async () => {
    const image = await newImage('16M');
    await ok(`${tsnbd} -c /dev/nbd0 -f raw ${image}`);
    const pid = await ok('pgrep -f attach-process.js');
    await ok(`kill -s STOP ${pid}`);
    const sync = await background('exec sync /dev/nbd0');
    await ok(`sleep 1; kill -s KILL ${pid}`);
    const next = await run(`${tsnbd} -c /dev/nbd0 -f raw ${image}`);
    expect(next.stderr).toMatch(
      /^tsnbd: what was written last to \/dev\/nbd0, whose process is gone, may be lost \(.*\)\n$/,
    );
    expect(next.status).toBe(0);
    expect((await sync.result).status).toBe(1);
    await ok(`${tsnbd} -d nbd0`);
  });

  // nbd_start_device_ioctl: what NBD_DO_IT holds ends with the process that called it.
  test('by ioctl, whose process is killed, is free again, and the next attach removes the dead state file', async () => {
    const image = await newImage('64M');
    await ok(`${tsnbd} --kernel-api=ioctl -c /dev/nbd0 -f raw ${image} && pkill -KILL -f attach-process.js`);
    await expectFree();
    expect(await ok('ls /run/tsnbd')).toBe('nbd0.json\nnbd0.sock');
    expect((await (await attached(image)).stop()).status).toBe(0);
  });

  // nbd_genl_connect: the configuration holds the sockets, not the process that gave them.
  test('by netlink, whose process is killed, stays until the next attach or detach', async () => {
    const image = await newImage('64M');
    const kill = 'pkill -KILL -f attach-process.js; until ! pgrep -f attach-process.js; do sleep 0.1; done';
    const again = `${tsnbd} --kernel-api=netlink -c /dev/nbd0 -f raw ${image}`;
    const lost = 'tsnbd: what was written last to /dev/nbd0, whose process is gone, may be lost (';
    await ok(`${again} && ${TWO_PARTITIONS} | sfdisk -q /dev/nbd0 && ${kill}`);
    const mark = await ok('cat /sys/block/nbd0/backend');

    const keeper = await background('exec sleep 100 </dev/nbd0p1');
    const refused = await run(again);
    expect(refused).toMatchObject({ status: 5, stdout: '' });
    expect(refused.stderr).toBe(
      `tsnbd: /dev/nbd0 is still attached, though its process is gone, and open in process ${keeper.pid} (sleep)\n`,
    );
    expect((await run(`${tsnbd} -d /dev/nbd0`)).status).toBe(8);
    await keeper.stop();

    const attached = await run(again);
    expect(attached).toMatchObject({ status: 0, stdout: '' });
    expect(attached.stderr).toContain(lost);
    expect(await ok('cat /sys/block/nbd0/backend')).not.toBe(mark);
    const dir = await memoryDir('mount');
    await ok(`mkfs.ext4 -q /dev/nbd0p1 && mount /dev/nbd0p1 ${dir} && ${kill}`);
    expect((await run(again)).stderr).toContain(`and in use: /dev/nbd0p1 is mounted on ${dir}\n`);
    expect((await run(`${tsnbd} -d /dev/nbd0`)).status).toBe(5);
    expect((await run(`${tsnbd} -d --force /dev/nbd0`)).stderr).toContain('is cut off, but not free');
    await ok(`umount ${dir}`);

    await ok(`${again} && ${kill}`);
    const detached = await run(`${tsnbd} -d /dev/nbd0`);
    expect(detached).toMatchObject({ status: 0, stdout: '/dev/nbd0 disconnected\n' });
    expect(detached.stderr).toContain(lost);
    await ok('test ! -e /dev/nbd0p1');
  });

  // nbd_genl_connect without an index (nbd_find_get_unused, nbd_dev_add); an ioctl has to be made on a device that is open.
  test('gets a device that the kernel chooses, whose name is printed', async () => {
    const [image, other] = [await newImage('4M'), await newImage('4M')];
    expect(await run(`${tsnbd} -c auto -f raw ${image}`)).toEqual({ status: 0, stdout: '/dev/nbd0\n', stderr: '' });
    const second = await background(`exec ${tsnbdHere} -c auto -f raw ${other}`);
    await vi.waitFor(() => expect(second.output().stdout).toBe('/dev/nbd1\n'), 20_000);
    await ok(`test -e /run/tsnbd/nbd1.json && ${tsnbd} -d nbd0`);
    expect(await second.stop()).toEqual({ status: 0, stdout: '/dev/nbd1\n', stderr: '' });
    await expectNothingLeft('nbd1');
  });

  test('in the foreground stays until the device is detached', async () => {
    const image = await newImage('4M');
    const command = await background(`exec ${tsnbd} --nofork -v -c /dev/nbd0 -f raw ${image}`);
    await until('test -e /run/tsnbd/nbd0.json && test -e /sys/block/nbd0/pid');
    await vi.waitFor(() => expect(command.output().stderr).toContain('connected'), 20_000);
    // It has started itself again, so that every thread writes for the kernel when memory is short (<linux/sched.h>).
    const flags = await ok(`cat /proc/${command.pid}/task/*/stat | sed 's/.*) //' | cut -d ' ' -f 7`);
    expect(flags.split('\n').filter((each) => (Number(each) & 0x180000) !== 0x180000)).toEqual([]);
    await ok(`${tsnbd} -d /dev/nbd0`);
    const { status, stderr } = await command.result;
    expect(status).toBe(0);
    expect(stderr).toContain(`NBD device /dev/nbd0 is now connected to ${image}\n`);

    // Before it says that it is connected, a signal undoes the attach, which is a failure.
    const stopped = await attached(`--kernel-api=ioctl ${image}`);
    expect((await stopped.stop('TERM')).status).toBe(0);
  });
});

describe('an image is not attached', () => {
  const refused = async (command: string, status: number, message: RegExp) => {
    const result = await run(command);
    expect(result.stderr).toMatch(message);
    expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(result.status).toBe(status);
    expect(result.stdout).toBe('');
  };

  test('to a device that is busy, missing, or no nbd device', async () => {
    const image = await newImage('4M');
    const other = await newImage('4M');
    const attachment = await attached(image);
    await refused(`${tsnbd} -c /dev/nbd0 -f raw ${other}`, 5, /^tsnbd: \/dev\/nbd0 is not free: /);
    await refused(`${tsnbdHere} -c /dev/nbd1 -f raw ${image}`, 5, /^tsnbd: .*in use/);
    await refused(
      `${tsnbdHere} --kernel-api=ioctl -c /dev/nbd99 -f raw ${other}`,
      1,
      /nbd99 does not exist: this kernel has 8 devices/,
    );
    await refused(`${tsnbd} -c /dev/sda -f raw ${other}`, 2, /sda/);
    expect((await attachment.stop()).status).toBe(0);
  });

  test('when it is missing, a folder, empty, or of another format', async () => {
    const dir = await memoryDir('bad');
    await ok(`: >${dir}/empty; qemu-img create -q -f vdi ${dir}/disk.vdi 4M`);
    await refused(`${tsnbdHere} -c /dev/nbd0 ${dir}/absent`, 1, /does not exist/);
    await refused(`${tsnbdHere} -c /dev/nbd0 ${dir}`, 1, /folder|directory/);
    await refused(`${tsnbdHere} -c /dev/nbd0 ${dir}/empty`, 1, /empty/);
    await refused(`${tsnbd} -c /dev/nbd0 ${dir}/disk.vdi`, 6, /vdi/);
  });

  test('when it lies on the device itself', async () => {
    const image = await newImage('64M');
    const dir = await memoryDir('mount');
    const outer = await attached(image);
    await ok(`mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 ${dir} && truncate -s 4M ${dir}/inner.raw`);
    expect((await run(`${tsnbdHere} -c /dev/nbd0 -f raw ${dir}/inner.raw`)).status).not.toBe(0);
    const inner = await attached(`${dir}/inner.raw`, 'nbd1');
    expect((await inner.stop()).status).toBe(0);
    await ok(`umount ${dir}`);
    expect((await outer.stop()).status).toBe(0);
    await refused(`${tsnbdHere} -c /dev/nbd0 -f raw /dev/nbd0`, 6, /nbd0/);
  });

  test('by a user who is not root', async () => {
    const image = await newImage('4M');
    await ok(`chmod 777 ${image} && chmod 755 $(dirname ${image})`);
    await refused(
      `setpriv --reuid=65534 --clear-groups ${tsnbdHere} -c /dev/nbd0 -f raw ${image}`,
      3,
      /only root.*sudo/,
    );
    await refused(`setpriv --reuid=65534 --clear-groups ${tsnbd} -d /dev/nbd0`, 3, /only root.*sudo/);
  });

  test('in a kernel without nbd', async () => {
    const image = await newImage('4M');
    expect(image).toContain('disk.raw');
    await withOwnGuest({ nbd: 'none' }, async (guest) => {
      const result = await guest.run(
        `truncate -s 4M /tmp/disk.raw; cd ${ROOT}; ${tsnbd} -c /dev/nbd0 -f raw /tmp/disk.raw`,
      );
      expect(result.status).toBe(4);
      expect(result.stderr).toMatch(/^tsnbd: the nbd module is not loaded; load it with: modprobe nbd max_part=8\n$/);
    });
  });
});

test('without partitions in the module this is told where there are some, and past nbds_max devices are made', async () => {
  await withOwnGuest({ nbd: 'none' }, async (guest) => {
    const say = async (script: string) => {
      const { stdout, stderr } = await guest.run(`cd /tmp; ${script}`);
      return stdout + stderr;
    };
    const image = 'truncate -s 80M parts; sfdisk -q --no-tell-kernel parts; truncate -s 4M plain other';
    await guest.run(`modprobe nbd max_part=0 nbds_max=1; cd /tmp; ${TWO_PARTITIONS} | (${image}); chmod 600 *`);
    const hidden = 'no partitions will show: the nbd module was loaded without them (max_part=0)';
    expect(await say(`${tsnbd} -c nbd0 -f raw parts`)).toBe(
      `tsnbd: ${hidden}; load it again with: modprobe -r nbd; modprobe nbd max_part=8\n`,
    );
    expect(await say(`${tsnbd} -c auto -f raw plain`)).toBe('/dev/nbd1\n');
    const remote = `nbdkit -U /tmp/sock file /tmp/other && ${tsnbdClient} -unix /tmp/sock auto 2>/dev/null`;
    expect(await say(`${remote}; test -b /dev/nbd2 && echo made`)).toBe('/dev/nbd2\nmade\n');
    expect(await say(`for n in 0 1 2; do ${tsnbd} -d nbd$n 2>&1 | grep -v "nobody counted"; done`)).toMatch(
      /^(\/dev\/nbd\d disconnected\n){3}$/,
    );
  });
});

test.each(['ioctl', 'netlink'])(
  'a device that is written to is detached, and the writer hears of it (%s)',
  async (api) => {
    const image = await newImage('64M');
    await ok(`${tsnbd} -c nbd0 --kernel-api=${api} -f raw ${image}`);
    const job =
      '--rw=randwrite --bs=64k --size=32M --direct=1 --ioengine=libaio --iodepth=8 --time_based --runtime=120';
    const writer = await background(`exec fio --name=writer --filename=/dev/nbd0 ${job}`);
    await until('read -r _ writes </sys/block/nbd0/inflight && test $writes -ge 1'); // its other counters are of earlier uses, too
    expect(await run(`${tsnbd} -d nbd0`)).toEqual({ status: 0, stdout: '/dev/nbd0 disconnected\n', stderr: '' });
    const { status, stdout, stderr } = await writer.result;
    expect(status).not.toBe(0);
    expect(stdout + stderr).toMatch(/Input\/output error|No space left/); // a device without a size has no space
  },
);
