import { afterEach, expect, test } from 'vitest';
import {
  assertQuietKernel,
  type Background,
  background,
  kernelLog,
  markKernelLog,
  memoryDir,
  ok,
  run,
  until,
} from './guest.js';
import { expectNothingLeft, isSocket, pidBehind, startServer, tsnbd, tsnbdClient } from './programs.js';

// While a disconnect waits for a server that does not read, it holds the lock of generic netlink. Nobody is left who could end
// the connection where the device's process was killed; so a process of its own makes the call, and is not waited for for long:
// longer than a question to netlink is waited for, and asked again, if it may be.

const started: Background[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop('KILL');
  await expectNothingLeft();
  await assertQuietKernel();
});

/** Threads that sleep deaf to signals, as in a lock of the kernel. */
const deafThreads = (pid: string) => ok(`cat /proc/${pid}/task/*/stat | grep -c ') D ' || true`);

test('a disconnect that hangs is not waited for; a new connection is offered once, however long that holds netlink, and takes one place only', async () => {
  const folder = await memoryDir('held');
  await ok(`truncate -s 64M ${folder}/disk ${folder}/other`);
  const serve = async (name: string) => {
    await ok(`rm -f ${folder}/${name}.sock`);
    const socket = `${folder}/${name}.sock`;
    const server = await startServer(`nbdkit -f -U ${socket} file ${folder}/${name}`, isSocket(socket));
    started.push(server);
    return server;
  };
  const [server, other] = [await serve('disk'), await serve('other')];
  await ok(`${tsnbdClient} -unix ${folder}/disk.sock nbd0 -C 2 --kernel-api=netlink`);
  // What the kernel takes for no limit, by the way.
  const limits = `${tsnbd} status nbd0 | grep requestTimeout && cat /sys/block/nbd0/queue/io_timeout`;
  expect(await ok(limits)).toBe('requestTimeoutSeconds: 30\n30000');
  const pid = await pidBehind('nbd0');

  await ok(`${tsnbdClient} -unix ${folder}/other.sock nbd1 --kernel-api=netlink`);
  // By ioctl, and without us.
  await ok(`nbd-client -L -unix ${folder}/other.sock /dev/nbd2 >/dev/null`);
  await until('test -e /sys/block/nbd2/pid && head -c 4096 /dev/nbd2 >/dev/null');
  await ok(`kill -s STOP ${other.pid}`);
  const fill = (device: string) => background(`exec dd if=/dev/zero of=/dev/${device} bs=1M count=8 conv=fsync`);
  const [writer, another] = [await fill('nbd1'), await fill('nbd2')];
  await until('test "$(awk \'{ print $2 }\' /sys/block/nbd1/inflight)" -ge 1');
  await ok('sleep 1');
  await until('test "$(awk \'{ print $2 }\' /sys/block/nbd2/inflight)" -ge 1');
  await ok(`kill -s KILL ${await pidBehind('nbd1')}`);
  const detach = await background(`exec ${tsnbd} -d --force nbd1`);
  await until(
    `test -n "$(pgrep -f disconnect-process.js)" && grep -q ') D ' /proc/$(pgrep -f disconnect-process.js)/task/*/stat`,
  );
  const mark = await markKernelLog();
  await server.stop('KILL');
  await serve('disk');
  await until(`test "$(cat /proc/${pid}/task/*/stat | grep -c ') D ')" -ge 1`);
  const others = await run(`${tsnbd} -d --force nbd2`);
  const socketIsStuck = 'it waits for its server, which does not read; end the server, or let it go on';
  expect(await detach.result).toEqual({
    status: 7,
    stdout: '',
    stderr: `tsnbd: the kernel does not let go of /dev/nbd1: ${socketIsStuck}\n`,
  });
  expect(others).toEqual({
    status: 7,
    stdout: '',
    stderr: `tsnbd: the kernel does not let go of /dev/nbd2: ${socketIsStuck}\n`,
  });
  expect(await deafThreads(pid)).toBe('1');

  await ok(`kill -s CONT ${other.pid}`);
  for (const each of [writer, another]) await each.result;
  await until('! pgrep -f disconnect-process.js && ! ls /sys/block/nbd[12]/pid');
  await until(`${tsnbd} status nbd0 | grep -q '^reconnects: 2$'`, 60_000);
  const log = await kernelLog(mark);
  expect(log.match(/nbd0: reconnected socket/g), log).toHaveLength(2);
  await ok('dd if=/dev/urandom of=/dev/nbd0 bs=1M count=64 oflag=direct status=none');
  await ok(`cmp /dev/nbd0 ${folder}/disk && ${tsnbdClient} -d nbd0`);
});
