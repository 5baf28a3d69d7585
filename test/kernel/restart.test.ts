import { afterEach, expect, test } from 'vitest';
import { long } from '../long.js';
import { assertQuietKernel, type Background, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, pidBehind, ROOT, startServer, tsnbd } from './programs.js';
import { dropStorage, loopDevice, mappedDevice, swapTable } from './storage.js';

// By netlink: nbd_genl_connect keeps the sockets, and nbd_genl_reconfigure takes others. nbd_start_device_ioctl keeps them for as
// long as the process that called it is in NBD_DO_IT.

const started: Background[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop('KILL');
  await dropStorage();
  for (const device of ['nbd0', 'nbd1']) await expectNothingLeft(device);
  await assertQuietKernel();
});

const restart = (device: string) =>
  ok(`${tsnbd} restart ${device}`).then((said) => expect(said).toBe(`/dev/${device} restarted`));

/** More than a process takes to start here, however busy the machine is. */
const START_SECONDS = 10;

/** Starts the process of a device again whenever that has ended, until the device is gone: what supervises it does so. */
const supervise = (device: string) =>
  background(`while read -r state </run/tsnbd/${device}.json; do
    pid=\${state#*:} pid=\${pid%%,*}
    kill -0 $pid 2>/dev/null || ${tsnbd} restart ${device} || exit 1
    sleep 0.2
  done 2>/dev/null`);

/** Asks the process of nbd0 to be replaced by one of the script `entry`; what it answers. */
const restartBy = (entry: string) =>
  run(
    `node -e '
      const client = require("net").connect("/run/tsnbd/nbd0.sock");
      const program = { execPath: process.execPath, entry: "file://${entry}" };
      client.write(JSON.stringify({ command: "restart", program }) + "\\n");
      client.on("data", (answer) => { process.stdout.write(answer); client.end(); });'`,
  );

/** Takes the task, and the word to go on, and is gone. */
const FAILS = `
  import { readSync, writeSync } from 'node:fs';
  writeSync(3, JSON.stringify({ kind: 'event', event: { kind: 'waiting' } }) + '\\n');
  let heard = '';
  const piece = Buffer.alloc(65536);
  for (let length = -1; length !== 0 && !heard.includes('go on'); heard += piece.toString('utf8', 0, length)) {
    length = readSync(3, piece);
  }
  process.kill(process.pid, 'SIGKILL');`;

/** Goes on, and kills the process before it while that waits to hear of it. */
const KILLS = `
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const write = fs.writeFileSync;
  fs.writeFileSync = (...values) => {
    if (values[0].startsWith('/run/')) process.kill(process.ppid, 'SIGKILL');
    return write(...values);
  };
  syncBuiltinESMExports();
  await import('file://${ROOT}dist/attach-process.js');`;

const put = (path: string, script: string) => ok(`cat >${path} <<'END'\n${script}\nEND`);

/**
 * Blocks that tell where and when they were written are written, and read again, all over a device, for so long; none waits
 * for longer than `pauseSeconds`.
 */
const verify = (device: string, seconds: number, pauseSeconds: number) =>
  background(
    `exec fio --name=${device} --filename=/dev/${device} --direct=1 --rw=randrw --bsrange=4k-128k --iodepth=8 --ioengine=libaio --verify=crc32c --verify_backlog=64 --time_based --runtime=${seconds} --size=32M --max_latency=${pauseSeconds}s --output-format=terse`,
  );

test('the process of an image in use is replaced, one that fails is not, and one that is killed then no more', async () => {
  const dir = await memoryDir('restart');
  // tmpfs has no direct I/O before Linux 6.6.
  await ok(`modprobe loop; cd ${dir}; truncate -s 64M on; mkfs.ext4 -q on && mkdir mnt && mount -o loop on mnt`);
  await ok(`truncate -s 32M ${dir}/raw && qemu-img create -q -f qcow2 ${dir}/mnt/qcow2 32M`);
  await ok(`${tsnbd} -c nbd0 -f raw ${dir}/raw && ${tsnbd} -c nbd1 --cache=none -f qcow2 ${dir}/mnt/qcow2`);
  const jobs = [await verify('nbd0', long ? 60 : 5, START_SECONDS), await verify('nbd1', long ? 60 : 5, START_SECONDS)];
  const firsts = [await pidBehind('nbd0'), await pidBehind('nbd1')];
  await put(`${dir}/fails.mjs`, FAILS);
  await put(`${dir}/kills.mjs`, KILLS);

  await restart('nbd0');
  await restart('nbd1');
  const seconds = [await pidBehind('nbd0'), await pidBehind('nbd1')];
  expect(seconds.some((pid) => firsts.includes(pid))).toBe(false);
  await until(`! test -e /proc/${firsts[0]} && ! test -e /proc/${firsts[1]}`);
  expect(await ok(`${tsnbd} status nbd0`)).toMatch(new RegExp(`^state: connected$[^]*^pid: ${seconds[0]}$`, 'm'));

  expect((await restartBy(`${dir}/fails.mjs`)).stdout).toMatch(
    /^\{"ok":false,"code":"died","message":"the background process ended early \(SIGKILL\)"\}\n$/,
  );
  expect(await pidBehind('nbd0')).toBe(seconds[0]);
  await restartBy(`${dir}/kills.mjs`);
  await until(`! test -e /proc/${seconds[0]}`);
  expect(await pidBehind('nbd0')).not.toBe(seconds[0]);
  for (let times = 0; times < (long ? 10 : 0); times += 1) await restart(`nbd${times % 2}`);

  for (const job of jobs) {
    const { status, stdout, stderr } = await job.result;
    expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  }
  const other = await run(`${tsnbd} --nofork -c nbd2 -f raw ${dir}/raw`);
  expect(other.stderr).toContain('is in use by node');
  await ok(`${tsnbd} -d nbd0 && ${tsnbd} -d nbd1 && qemu-img check -q ${dir}/mnt/qcow2 && umount ${dir}/mnt`);
  // What another process has set up by now is no leftover.
  await ok(`${tsnbd} --kernel-api=ioctl -c nbd0 -f raw ${dir}/raw`);
  const refused = await run(`${tsnbd} restart nbd0`);
  expect(refused.status).toBe(6);
  expect(refused.stderr).toMatch(/^tsnbd: \/dev\/nbd0 was set up by ioctl, and ends with the process that did that/);
  await ok(`${tsnbd} -d nbd0`);
  expect((await run(`${tsnbd} restart nbd0`)).stderr).toBe('tsnbd: /dev/nbd0 is not attached\n');
});

/** A disk whose next write takes 3 seconds when there is a file DIR/delay, while others do not wait for it. */
const DELAYING = `
  pwrite='if rm $disk.delay 2>/dev/null; then touch $disk.begun; sleep 3; fi;
    dd of=$disk bs=64k seek=$4 oflag=seek_bytes iflag=fullblock conv=notrunc status=none'
  pread='dd if=$disk bs=64k skip=$4 count=$3 iflag=skip_bytes,count_bytes,fullblock status=none'
  get_size='echo 1048576' can_write='exit 0' can_flush='exit 0' flush='exit 0' thread_model='echo parallel'`;

/** 16 writes at a time of that letter. */
const fill = (letter: string) =>
  `fio --name=${letter} --filename=/dev/nbd0 --direct=1 --rw=randwrite --bs=4k --size=64k --iodepth=16 --ioengine=libaio --buffer_pattern='"${letter}"' --output-format=terse`;
const expectAll = async (letter: string, file: string) =>
  expect(await ok(`head -c 65536 ${file} | tr -d ${letter} | wc -c`)).toBe('0');

test('a write that is late is not done over a later one, be the process replaced or killed', async () => {
  const dir = await memoryDir('restart');
  await ok(`truncate -s 1M ${dir}/disk`);
  const plugin = `env disk=${dir}/disk nbdkit -f -t 32 -U ${dir}/sock eval ${DELAYING.replaceAll('\n', ' ')}`;
  started.push(await startServer(plugin, isSocket(`${dir}/sock`)));
  await ok(`nbd-client -unix ${dir}/sock /dev/nbd1 >/dev/null`);
  await ok(`${tsnbd} -c nbd0 --cache=none --persist -f raw /dev/nbd1`);

  await ok(`touch ${dir}/disk.delay`);
  const late = await background(fill('a'));
  await until(`test -e ${dir}/disk.begun`);
  const replaced = await background(`${tsnbd} restart nbd0`);
  await ok('sleep 1');
  await ok(fill('b'));
  await expectAll('b', '/dev/nbd0');
  for (const each of [late, replaced]) expect(await each.result).toMatchObject({ status: 0 });
  await ok('sleep 2');
  await expectAll('b', `${dir}/disk`);

  await ok(`rm ${dir}/disk.begun; touch ${dir}/disk.delay`);
  const sentAgain = await background(fill('c'));
  await until(`test -e ${dir}/disk.begun`);
  const killed = await pidBehind('nbd0');
  await ok(`kill -s KILL ${killed}`);
  expect(await sentAgain.result).toMatchObject({ status: 0 });
  await until(`! grep -q '"pid":${killed},' /run/tsnbd/nbd0.json`);
  await ok(fill('d'));
  await expectAll('d', '/dev/nbd0');
  await ok('sleep 3');
  await expectAll('d', `${dir}/disk`);
  await ok(`${tsnbd} -d nbd0 && nbd-client -d /dev/nbd1`);
});

test('requests that nobody goes on with fail after the dead-connection limit, those that were sent too', async () => {
  const dir = await memoryDir('dead');
  await ok(`truncate -s 4M ${dir}/raw && ${tsnbd} -c nbd0 --persist --dead-timeout=3 -f raw ${dir}/raw`);
  const killed = await pidBehind('nbd0');
  const read = (skip: number) => `dd if=/dev/nbd0 of=/dev/null bs=4k count=1 skip=${skip} iflag=direct status=none`;
  const failed = { status: 1, stdout: '', stderr: "dd: error reading '/dev/nbd0': Input/output error\n" };
  await ok(`kill -s STOP ${killed}`);
  const sent = await background(`exec ${read(1)}`);
  await until('test "$(awk \'{ print $1 }\' /sys/block/nbd0/inflight)" = 1');
  await ok(`mv ${dir}/raw ${dir}/kept && kill -s KILL ${killed}`);
  const waiting = await background(`exec ${read(2)}`);
  for (const each of [sent, waiting]) expect(await each.result).toEqual(failed);
  expect(await run(read(3))).toEqual(failed);

  // Once somebody goes on, no limit is left of that: a slow request is done.
  await ok(`mv ${dir}/kept ${dir}/raw`);
  await until(`${tsnbd} status nbd0 | grep -q '^state: connected$'`, 30_000);
  expect(await ok('cat /sys/block/nbd0/queue/io_timeout')).toBe('2000');
  const serving = await pidBehind('nbd0');
  await ok(`kill -s STOP ${serving}`);
  const slow = await background(`exec ${read(4)}`);
  await ok(`sleep 5; kill -s CONT ${serving}`);
  expect(await slow.result).toMatchObject({ status: 0 });

  // What the killed one had counted is gone, and that is not forgotten by the next.
  await restart('nbd0');
  expect(await ok(`${tsnbd} status nbd0`)).toMatch(/^writeErrors: 0\nwriteErrorsUnknownBefore: 20[0-9T:.-]+Z$/m);
  await ok(`${tsnbd} -d nbd0`);
});

test('when the process of an image is killed, a second one goes on, or a restart', async () => {
  const dir = await memoryDir('restart');
  await ok(`truncate -s 32M ${dir}/raw ${dir}/other && qemu-img create -q -f qcow2 ${dir}/qcow2 32M`);
  const refused = await run(`${tsnbd} -c nbd0 --persist -f qcow2 ${dir}/qcow2`);
  expect(refused.stderr).toMatch(/^tsnbd: nobody can go on with it .*--cache=writethrough and directsync/);
  expect(refused.status).toBe(6);
  await ok(`${tsnbd} -c nbd0 --persist -f raw ${dir}/raw`);
  await ok(`${tsnbd} -c nbd1 --dead-timeout=60 --cache=writethrough -f qcow2 ${dir}/qcow2`);
  expect(await ok('cat /sys/block/nbd[01]/queue/io_timeout')).toBe('2000\n2000');
  const seconds = long ? 60 : 8;
  const jobs = [await verify('nbd0', seconds, 30), await verify('nbd1', seconds, 30)];
  const loop = await supervise('nbd1');
  await ok('sleep 1');
  const firsts = [await pidBehind('nbd0'), await pidBehind('nbd1')];
  await ok(`kill -s KILL ${firsts.join(' ')}`);
  for (const [index, device] of ['nbd0', 'nbd1'].entries()) {
    await until(`! grep -q '"pid":${firsts[index]},' /run/tsnbd/${device}.json`);
  }
  expect(await ok(`${tsnbd} status nbd0`)).toMatch(/^state: connected$/m);
  // The next second process is there by then.
  await until('test $(pgrep -fc attach-process.js) = 3');
  const second = await pidBehind('nbd0');
  await ok(`kill -s KILL ${second}`);
  for (const job of jobs) {
    const { status, stdout, stderr } = await job.result;
    expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  }
  await until(`! grep -q '"pid":${second},' /run/tsnbd/nbd0.json`);
  // 3: a cluster at most that was taken when the process was killed, and belongs to nothing.
  await ok(`${tsnbd} -d nbd1 && { qemu-img check -q ${dir}/qcow2 || test $? = 3; }`);
  expect(await loop.result).toEqual({ status: 0, stdout: '/dev/nbd1 restarted\n', stderr: '' });

  // Another file in the place of the image is not the image.
  await ok(`pkill -KILL -f attach-process.js; until ! pgrep -f attach-process.js; do sleep 0.1; done`);
  await ok(`mv ${dir}/raw ${dir}/kept && mv ${dir}/other ${dir}/raw`);
  const other = await run(`${tsnbd} restart nbd0`);
  expect(other).toMatchObject({ status: 6, stderr: expect.stringContaining('is another file than before') });
  await ok(`mv ${dir}/kept ${dir}/raw`);
  await restart('nbd0');
  await ok(`cmp /dev/nbd0 ${dir}/raw && ${tsnbd} -d nbd0`);
});

test('nobody goes on with an image that was not brought to the disk before its process was killed', async () => {
  const below = await loopDevice('16M');
  const disk = await mappedDevice('failing', below, `linear ${below} 0`);
  await ok(`${tsnbd} -c nbd0 --persist --dead-timeout=3 -f raw ${disk}`);
  const write = (how: string) => `dd if=/dev/urandom of=/dev/nbd0 bs=64k count=16 oflag=direct${how} status=none`;
  await ok(`${write('')} && sync /dev/nbd0`);
  await swapTable('failing', below, 'error');
  await ok(write(''));
  expect((await run('sync /dev/nbd0')).stderr).toMatch(/Input\/output error/);
  // Well again: an opening of its own would be told of nothing.
  await swapTable('failing', below, `linear ${below} 0`);
  await until('grep -q isLost /run/tsnbd/nbd0.json');
  await ok(`kill -s KILL ${await pidBehind('nbd0')}`);
  for (const wanted of [write(',dsync'), 'sync /dev/nbd0']) expect(await run(wanted)).toMatchObject({ status: 1 });
  expect(await run(`${tsnbd} restart nbd0`)).toEqual({
    status: 8,
    stdout: '',
    stderr: `tsnbd: what was written to ${disk} could not be brought to stable storage before its process was killed; detach the device, and check what is on it\n`,
  });
  await ok(`${tsnbd} -d --force nbd0`);
});

test('a device that another process goes on with is not taken down by who found it without one', async () => {
  const dir = await memoryDir('revived');
  await ok(`truncate -s 4M ${dir}/first && truncate -s 8M ${dir}/second`);
  await ok(`${tsnbd} -c nbd0 --dead-timeout 60 -f raw ${dir}/first`);
  await ok(`kill -KILL ${await pidBehind('nbd0')}`);
  // Its flush waits for the device.
  const other = await background(`exec ${tsnbd} -c nbd0 -f raw ${dir}/second`);
  await until('pgrep -x sync');
  await restart('nbd0');
  expect(await other.result).toEqual({
    status: 5,
    stdout: '',
    stderr: 'tsnbd: /dev/nbd0 is attached: another process goes on with it\n',
  });
  await ok('dd if=/dev/urandom of=/dev/nbd0 bs=4k count=1 oflag=direct status=none');

  await ok(`kill -KILL ${await pidBehind('nbd0')}`);
  const detach = await background(`exec ${tsnbd} -d nbd0`);
  await until('pgrep -x sync');
  await restart('nbd0');
  const uncounted = 'tsnbd: how many writes to /dev/nbd0 failed before its process was killed is not known\n';
  expect(await detach.result).toEqual({ status: 0, stdout: '/dev/nbd0 disconnected\n', stderr: uncounted });
});
