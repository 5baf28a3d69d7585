import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { assertQuietKernel, memoryDir, ok } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, newImage, ROOT, startServer, tsnbd, tsnbdClient } from '../kernel/programs.js';

const driver = join(ROOT, 'test/fault/drivers/kill-at-each-call.sh');
const LIMIT_MS = 290_000;

/** The calls that reach outside of the process; with --long every call that an attach makes. */
const OUTSIDE = ['ioctl', 'connect', 'socketpair', 'bind', 'sendmsg', 'write-open', 'rename', 'unlink'];
const EVERY_OTHER = [
  'mkdir',
  'chmod',
  'close',
  'fcntl',
  'shutdown',
  'clone3',
  'listen',
  'accept4',
  'setsockopt',
  'fsync',
];
const calls = process.env.TSNBD_TEST_LONG === '1' ? [...OUTSIDE, ...EVERY_OTHER] : OUTSIDE;

const commands: Record<string, string> = {};
beforeAll(async () => {
  const socket = `${await memoryDir('server')}/sock`;
  await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket));
  const image = await newImage('16M');
  commands['tsnbd -c'] = `${tsnbd} -v --nofork -c /dev/nbd0 -f raw ${image}`;
  commands['tsnbd-client'] = `${tsnbdClient} -nofork -unix ${socket} /dev/nbd0`;
  commands['tsnbd -c in the background'] = `${tsnbd} -v -c /dev/nbd0 -f raw ${image}`;
});

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

/** Every run but the last was killed, or got through after the kill hit nothing; nothing but run files was left. */
async function expectCleanKills(call: string, command: string | undefined): Promise<void> {
  const lines = (await ok(`${driver} ${call} '${tsnbd} -d nbd0' ${command}`, { limitMs: LIMIT_MS })).split('\n');
  const outcomes = lines.map((line) => line.split(' ').slice(2).join(' '));
  expect(new Set([...outcomes, 'killed', 'attached']), lines.join('\n')).toEqual(new Set(['killed', 'attached']));
  expect(outcomes.at(-1)).toBe('attached');
}

describe.each(['tsnbd -c', 'tsnbd-client'])('%s killed', (what) => {
  test.each(calls)('at any %s leaves the device free for the next attach', (call) =>
    expectCleanKills(call, commands[what]),
  );
});

describe('the command of an attach in the background killed', () => {
  test.each(['socketpair', 'bind', 'rename'])('at any %s leaves the device free', (call) =>
    expectCleanKills(call, commands['tsnbd -c in the background']),
  );
});
