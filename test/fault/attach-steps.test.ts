import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { assertQuietKernel, type Background, memoryDir, ok } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, testProgram } from '../kernel/programs.js';
import { long } from '../long.js';

/** Of each attach. */
const ROUNDS = long ? 1_000 : 5;
/** Of each of the devices that are attached beside each other. */
const PARALLEL_ROUNDS = long ? 125 : 3;
const PARALLEL_DEVICES = ['nbd0', 'nbd1', 'nbd2', 'nbd3', 'nbd4', 'nbd5', 'nbd6', 'nbd7'];

interface Leftovers {
  readonly fds: readonly string[];
  readonly threads: number;
  readonly runFiles: readonly string[];
}

/** The two attaches, each as its request; the server of the first stays up. */
const requests: Record<string, object> = {};
let server: Background | undefined;
beforeAll(async () => {
  const socket = `${await memoryDir('server')}/sock`;
  server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket), { limitMs: 7_200_000 });
  requests['a remote export'] = {
    kind: 'remote',
    address: { kind: 'unix', path: socket },
    exportName: '',
    device: 'nbd0',
    requestTimeoutSeconds: 0,
    persist: 'where-possible',
    deadTimeoutSeconds: 300,
    unattended: false,
  };
  const imagePath = await newImage('16M');
  requests['an image'] = { kind: 'image', imagePath, format: 'raw', readOnly: false, device: 'nbd0' };
});
afterAll(() => server?.stop('KILL'));

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

async function drive(words: string, request: object | undefined): Promise<unknown> {
  return JSON.parse(
    await ok(`node ${testProgram('attach-in-process')} ${words} '${JSON.stringify(request)}'`, { limitMs: 1_700_000 }),
  );
}

describe.each([
  ['a remote export', 'netlink'],
  ['an image', 'ioctl'],
  ['a remote export', 'ioctl'],
  ['an image', 'netlink'],
])('attaching %s by %s', (what, kernelApi) => {
  test('that fails before any one of its steps leaves nothing behind, and the next attach works', async () => {
    const told = await drive(long ? 'every-step' : 'steps', { ...requests[what], kernelApi });
    const { untouched, steps, before, failures, next } = told as {
      untouched: string;
      steps: string[];
      before: Leftovers;
      failures: { failing: string; end: string; after: Leftovers; next?: string }[];
      next: string;
    };
    expect(untouched).toBe('detached');
    expect(steps.length).toBeGreaterThan(7);
    expect(new Set(steps).size).toBe(steps.length);
    expect(before).toMatchObject({ pid: false, sectors: 0, runFiles: [], children: '' });
    // What comes next is an attach that fails a step later, at the end a whole one; with --long a whole one each time.
    expect(failures).toEqual(
      steps.map((failing) => {
        return { failing, end: `injected before '${failing}'`, after: before, ...(long && { next: 'detached' }) };
      }),
    );
    expect(next).toBe('detached');
  });

  test(`and detaching it ${ROUNDS} times leaves nothing behind`, async () => {
    const { ends, before, after } = (await drive(`rounds ${ROUNDS}`, { ...requests[what], kernelApi })) as Record<
      string,
      unknown
    >;
    expect(ends).toEqual({ detached: ROUNDS });
    expect(after).toEqual(before);
  });
});

const parallel = `${PARALLEL_DEVICES.length} devices at a time, ${PARALLEL_ROUNDS} times each, leave nothing behind`;
test.each(['netlink', 'ioctl'])(`by %s ${parallel}`, async (kernelApi) => {
  const dir = await memoryDir('parallel');
  await ok(`cd ${dir} && truncate -s 16M ${PARALLEL_DEVICES.join(' ')}`);
  // Images and exports in turn.
  const list = PARALLEL_DEVICES.map((device, index) => {
    const of =
      index % 2 === 0 ? { ...requests['an image'], imagePath: `${dir}/${device}` } : requests['a remote export'];
    return { ...of, device, kernelApi };
  });
  const { ends, before, after } = (await drive(`parallel ${PARALLEL_ROUNDS}`, list)) as {
    ends: unknown;
    before: Leftovers;
    after: Leftovers;
  };
  expect(ends).toEqual({ detached: PARALLEL_DEVICES.length * PARALLEL_ROUNDS });
  expect({ ...after, fds: [], threads: 0 }).toEqual({ ...before, fds: [], threads: 0 });
  // Threads for calls that sleep wait for the next, two of a device at most; each has an event loop's fds, and a pidfd.
  const threadsMax = 2 * PARALLEL_DEVICES.length;
  expect(after.threads - before.threads).toBeLessThanOrEqual(threadsMax);
  expect(after.fds.length - before.fds.length).toBeLessThanOrEqual(5 * threadsMax);
});
