import { afterEach, expect, test } from 'vitest';
import {
  assertQuietKernel,
  type Background,
  background,
  kernelLog,
  markKernelLog,
  memoryDir,
  ok,
  until,
} from './guest.js';
import { expectNothingLeft, isSocket, pidBehind, startServer, tsnbd, tsnbdClient } from './programs.js';

// While another program's disconnect waits for a server that does not read, it holds the lock of generic netlink.

/** Longer than a question to netlink is waited for, and asked again, if it may be. */
const HELD_SECONDS = 15;

const started: Background[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop('KILL');
  await expectNothingLeft();
  await assertQuietKernel();
});

/** Threads that sleep deaf to signals, as in a lock of the kernel. */
const deafThreads = (pid: string) => ok(`cat /proc/${pid}/task/*/stat | grep -c ') D ' || true`);

test('a new connection is offered once, however long netlink is held, and takes one place only', async () => {
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

  await ok(
    `nbd-client -unix ${folder}/other.sock /dev/nbd1 >/dev/null && head -c 4096 /dev/nbd1 >/dev/null && kill -s STOP ${other.pid}`,
  );
  const writer = await background('exec dd if=/dev/zero of=/dev/nbd1 bs=1M count=8 conv=fsync');
  await until('test "$(awk \'{ print $2 }\' /sys/block/nbd1/inflight)" -ge 1');
  await ok('sleep 1');
  const holder = await background('exec nbd-client -d /dev/nbd1');
  await until(`grep -q ') D ' /proc/${holder.pid}/stat`);
  const mark = await markKernelLog();
  await server.stop('KILL');
  await serve('disk');
  await until(`test "$(cat /proc/${pid}/task/*/stat | grep -c ') D ')" -ge 1`);
  await ok(`sleep ${HELD_SECONDS}`);
  expect(await deafThreads(pid)).toBe('1');

  await ok(`kill -s CONT ${other.pid}`);
  for (const each of [holder, writer]) await each.result;
  await until(`${tsnbd} status nbd0 | grep -q '^reconnects: 2$'`, 60_000);
  const log = await kernelLog(mark);
  expect(log.match(/nbd0: reconnected socket/g), log).toHaveLength(2);
  await ok('dd if=/dev/urandom of=/dev/nbd0 bs=1M count=64 oflag=direct status=none');
  await ok(`cmp /dev/nbd0 ${folder}/disk && ${tsnbdClient} -d nbd0`);
});
