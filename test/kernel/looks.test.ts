import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, memoryDir, ok } from './guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd } from './programs.js';

// To open a device is no small thing: it waits for a server that is gone, and keeps another program from setting the device up.

afterEach(async () => {
  for (const device of ['nbd0', 'nbd1']) await expectNothingLeft(device);
  await assertQuietKernel();
});

const OPENS = 'open,openat,openat2,creat';

test('tsnbd ls and tsnbd status open no device, be it ours, of another program, or idle', async () => {
  const dir = await memoryDir('trace');
  const image = await newImage('4M');
  const server = await startServer(`nbdkit -f -U ${dir}/sock memory 16M`, isSocket(`${dir}/sock`));
  await ok(`nbd-client -unix ${dir}/sock /dev/nbd1 && ${tsnbd} -c nbd0 -f raw ${image}`);
  /** Every attempt of a command, and of what it starts, to open a device. */
  const opens = (words: string) =>
    ok(
      `strace -f -qq -e trace=${OPENS} -o ${dir}/trace ${tsnbd} ${words} >${dir}/stdout; grep /dev/nbd ${dir}/trace; true`,
    );

  for (const words of ['ls', 'status nbd0', 'status nbd1', 'status nbd2 2>/dev/null']) {
    expect(await opens(words)).toBe('');
    expect(await ok(`wc -l <${dir}/trace`)).not.toBe('0');
  }
  // Whose it is cannot be seen, nor whether its connection is alive.
  const [, other] = JSON.parse(await ok(`${tsnbd} ls --json`)) as unknown[];
  expect(other).toMatchObject({
    device: '/dev/nbd1',
    sizeBytes: 16 * 2 ** 20,
    state: 'configured',
    source: null,
    pid: null,
  });
  // The trace would show it.
  expect(await opens('-d nbd1')).toContain('"/dev/nbd1"');
  await ok(`${tsnbd} -d nbd0`);
  await server.stop('KILL');
});
