import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, kernelLog, markKernelLog, memoryDir, ok, run } from './guest.js';
import { expectNothingLeft, isSocket, startServer, tsnbd, tsnbdClient } from './programs.js';

// `tsnbd-client -t`: the limit of a request, which the kernel keeps.

const LIMIT_SECONDS = 2;
/** The kernel looks after its requests from time to time, and a guest can be late. Without a limit they wait for ever. */
const MOST_SECONDS = 60;

afterEach(async () => {
  for (const device of ['nbd0', 'nbd1']) await expectNothingLeft(device);
  await assertQuietKernel();
});

/** By netlink, `-T 0`: else a request that was given up waits for another connection. By ioctl there is no such wait. */
test.each([
  ['netlink', '-T 0', '0'],
  ['ioctl', '', 'none'],
])(
  'a request that a stopped server does not answer fails at its limit, an idle device does not (%s)',
  async (api, wait, deadTimeout) => {
    const folder = await memoryDir('limit');
    const serve = (name: string) =>
      startServer(`nbdkit -f -U ${folder}/${name} memory 16M`, isSocket(`${folder}/${name}`));
    const [idle, stopped] = [await serve('idle'), await serve('stopped')];
    const attach = (name: string, device: string) =>
      `${tsnbdClient} -unix ${folder}/${name} ${device} --kernel-api=${api} -t ${LIMIT_SECONDS} ${wait}`;
    await ok(`${attach('idle', 'nbd0')} && ${attach('stopped', 'nbd1')}`);
    expect(await ok(`${tsnbd} status nbd0 | grep -E '(Limit|Timeout)Seconds'`)).toBe(
      `connectLimitSeconds: 10\nrequestTimeoutSeconds: ${LIMIT_SECONDS}\ndeadTimeoutSeconds: ${deadTimeout}`,
    );

    const mark = await markKernelLog();
    await ok(`kill -s STOP ${stopped.pid}`);
    const read = (device: string) => `dd if=/dev/${device} of=/dev/null bs=4k count=1 iflag=direct status=none`;
    const failed = await run(`timeout ${MOST_SECONDS} ${read('nbd1')}`);
    expect(failed).toEqual({ status: 1, stdout: '', stderr: "dd: error reading '/dev/nbd1': Input/output error\n" });
    await ok(`sleep ${LIMIT_SECONDS}`);
    const log = await kernelLog(mark);
    expect(log).toMatch(/nbd1: Connection timed out/);
    expect(log).not.toContain('nbd0');
    expect(await ok(`${tsnbd} status nbd0`)).toMatch(api === 'netlink' ? /^reconnects: 0$/m : /^state: connected$/m);
    await ok(read('nbd0'));

    await ok(`${tsnbdClient} -d nbd0`);
    if (api === 'netlink') await ok(`${tsnbdClient} -d nbd1 --force`);
    for (const server of [idle, stopped]) await server.stop('KILL');
  },
);
