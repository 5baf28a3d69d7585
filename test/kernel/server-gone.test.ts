import { afterAll, beforeAll, expect, test } from 'vitest';
import { assertQuietKernel, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbd, tsnbdClient } from './programs.js';
import { attachHere, dropClients, expectLocked, hears, PSS_KIB_MAX } from './supervised.js';

// Devices that wait for another connection, as those of reconnect.test.ts (nbd_genl_reconfigure), and what ends that.

let folder = '';
beforeAll(async () => {
  folder = await memoryDir('gone');
});

afterAll(async () => {
  await dropClients();
  for (let device = 0; device < 8; device += 1) await expectNothingLeft(`nbd${device}`);
  await assertQuietKernel();
});

test('a device whose server is gone is detached by force only, fails when it was told to, and a killed supervisor leaves it to the next', async () => {
  const socket = `${folder}/sock`;
  // What is written is under way for as long as the server lives.
  const slow = `nbdkit -f -U ${socket} --filter=delay memory 64M wdelay=600`;
  const server = await startServer(slow, isSocket(socket));
  const syslog = await background(`exec busybox syslogd -n -O ${folder}/log`);
  await until(isSocket('/dev/log'));
  await ok(`${tsnbdClient} -unix ${socket} /dev/nbd0`);
  const pid = await ok('pgrep -f attach-process.js');
  const impatient = await attachHere(`-unix ${socket} /dev/nbd1 -dead-timeout 2`);
  const limited = await attachHere(`-unix ${socket} /dev/nbd7 -retry-limit 3`);
  // Nobody connects again: in the foreground the device goes with its server, in the background nobody is there.
  const without = await attachHere(`-unix ${socket} /dev/nbd2 --no-persist`);
  await ok(`${tsnbdClient} -unix ${socket} /dev/nbd4 --no-persist`);
  expect(await ok('pgrep -f attach-process.js')).toBe(pid);
  const orphan = await attachHere(`-unix ${socket} /dev/nbd3`);
  const taken = await attachHere(`-unix ${socket} /dev/nbd5`);
  expect(await expectLocked({ pid: Number(pid) })).toBeLessThan(PSS_KIB_MAX);
  // Where another network namespace has no netlink for nbd, as on Linux 6.1.
  const inOther = await run(`unshare -n ${tsnbdClient} -unix ${socket} /dev/nbd6 -dead-timeout 2`);
  expect(inOther.status).toBe(0);
  const byIoctl = (await ok(`${tsnbd} status nbd6`)).includes('kernelApi: ioctl');
  expect(inOther.stderr.includes('tsnbd-client: nobody connects again when the connection is lost')).toBe(byIoctl);
  await ok(`${tsnbdClient} -d nbd6`);
  const wanted = await run(`unshare -n ${tsnbdClient} -unix ${socket} /dev/nbd6 -persist`);
  expect(wanted.status).toBe(byIoctl ? 6 : 0);
  if (byIoctl) expect(wanted.stderr).toMatch(/netlink/);
  else await ok(`${tsnbdClient} -d nbd6`);
  const sent = await background('exec dd if=/dev/zero of=/dev/nbd1 bs=64k count=1 oflag=direct');
  await until('test "$(awk \'{ print $2 }\' /sys/block/nbd1/inflight)" -ge 1');
  await server.stop('KILL');

  expect((await without.result).status).toBe(8);
  const refused = await run(`${tsnbdClient} -d nbd0`);
  expect(refused.status).toBe(8);
  expect(refused.stderr).toMatch(/^tsnbd-client: \/dev\/nbd0 has no connection to its server; .*--force/);
  const [nbd0, ...rest] = (JSON.parse(await ok(`${tsnbd} ls --json`)) as Record<string, unknown>[]).filter(
    ({ device }) => device !== '/dev/nbd7',
  );
  expect(rest.map(({ device, state }) => [device, state])).toEqual([
    ['/dev/nbd1', 'reconnecting'],
    ['/dev/nbd3', 'reconnecting'],
    ['/dev/nbd4', 'configured'],
    ['/dev/nbd5', 'reconnecting'],
  ]);
  expect(rest.at(2)).toMatchObject({ pid: null, kernelApi: 'netlink', source: `nbd+unix:///?socket=${socket}` });
  expect(nbd0).toEqual({
    device: '/dev/nbd0',
    sizeBytes: 67_108_864,
    state: 'reconnecting',
    readOnly: false,
    source: `nbd+unix:///?socket=${socket}`,
    format: null,
    connections: 1,
    kernelApi: 'netlink',
    pid: Number(pid),
    mounts: [],
  });
  const status = await ok(`${tsnbd} status nbd1`);
  for (const line of [
    /^device: \/dev\/nbd1$/m,
    /^state: reconnecting$/m,
    /^blockSizeBytes: 512$/m,
    /^flags: .*can_flush.*$/m,
    /^connectLimitSeconds: 10$/m,
    /^requestTimeoutSeconds: 0$/m,
    /^deadTimeoutSeconds: 2$/m,
    /^reconnects: 0$/m,
  ]) {
    expect(status).toMatch(line);
  }

  // What was sent fails in the end, and what comes then fails at once.
  await hears(impatient, /no connection to .* for 2 s: requests fail until there is one/);
  expect((await sent.result).stderr).toContain('Input/output error');
  expect((await run('dd if=/dev/nbd1 of=/dev/null bs=4k count=1 iflag=direct')).stderr).toContain('Input/output error');
  await ok(`${tsnbdClient} -d nbd0 --force && ! test -e /sys/block/nbd0/pid`);
  await until(`! test -e /proc/${pid}`);

  // Another program has disconnected it: nobody has to wait for its server.
  await hears(taken, /is lost; connecting again/);
  await ok('nbd-client -d /dev/nbd5');
  expect((await taken.result).status).toBe(8);
  await ok('! ls /run/tsnbd/nbd5.*');

  await orphan.stop('KILL');
  for (const device of ['nbd3', 'nbd4']) {
    const late = await run(`${tsnbdClient} -d ${device}`);
    expect(late.status).toBe(0);
    expect(late.stderr).toContain(`what was written last to /dev/${device}, whose process is gone, may be lost`);
  }
  const { status: end, stderr } = await limited.result;
  expect(stderr).toMatch(
    /no connection to .* for 3 s: giving up\n.*the connection of \/dev\/nbd7 was lost; the device is gone\n$/,
  );
  expect(end).toBe(8);
  await hears(limited, /giving up/);
  // Once there is a connection again, nothing fails any more, and a slow request is waited for.
  await ok(`rm ${socket}`);
  const back = await startServer(`nbdkit -f -U ${socket} --filter=delay memory 64M rdelay=3`, isSocket(socket));
  await hears(impatient, /connected to .* again after/);
  await ok('dd if=/dev/nbd1 of=/dev/null bs=4k count=1 iflag=direct status=none');
  expect(await impatient.stop()).toMatchObject({ status: 0 });
  await back.stop('KILL');
  await syslog.stop();
  const log = await ok(`cat ${folder}/log`);
  expect(log).toMatch(new RegExp(` daemon\\.info tsnbd\\[${pid}\\]: nbd0: attached\n`));
  expect(log).toMatch(/ daemon\.warn tsnbd\[\d+\]: nbd0: the connection to .*sock is lost; connecting again\n/);
});

test('swap on a remote device, whose process is all in memory, outlives its server', async () => {
  const socket = `${folder}/swap`;
  await ok(`truncate -s 64M ${folder}/disk`);
  const serve = () => startServer(`nbdkit -f -U ${socket} file ${folder}/disk`, isSocket(socket));
  const first = await serve();
  const swap = await attachHere(`-unix ${socket} nbd1 -s`);
  await expectLocked(swap);
  expect(await ok(`tr '\\0' ' ' </proc/${swap.pid}/cmdline`)).toContain('--max-old-space-size=256 ');
  await ok('mkswap /dev/nbd1 >/dev/null && swapon /dev/nbd1');
  await first.stop('KILL');
  await hears(swap, /is lost; connecting again/);
  await ok(`rm ${socket}`);
  const second = await serve();
  await hears(swap, /again after/);
  expect((await run(`${tsnbd} -d nbd1`)).stderr).toContain('/dev/nbd1 is swap space');
  await ok('swapoff /dev/nbd1');
  expect(await swap.stop()).toMatchObject({ status: 0 });
  await second.stop('KILL');
});
