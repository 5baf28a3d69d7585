import { closeSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import { libc } from '#tsnbd/kernel/libc.js';
import { F_GETFL, O_NONBLOCK, SCHED_BATCH, SCHED_OTHER } from '#tsnbd/kernel/libc-abi.js';
import { makePipe } from '#tsnbd/kernel/pipe-calls.js';
import { waitReadable } from '#tsnbd/kernel/socket-calls.js';
import { PacedSocket } from '#tsnbd/server/paced-socket.js';

const WAITS_A_PERIOD = 32;
const target = Buffer.alloc(64);
let client: number;
let server: number;
let now: number;
let isSpare: boolean;

beforeEach(() => {
  [client, server] = socketPair();
  now = 1;
  isSpare = true;
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
  closeSync(client);
  closeSync(server);
});

const sockets: PacedSocket[] = [];
function paced(): PacedSocket {
  const socket = new PacedSocket(
    server,
    { hasCoreToSpare: () => isSpare },
    -1,
    () => false,
    () => now,
  );
  sockets.push(socket);
  return socket;
}
const policy = () => libc.schedGetscheduler(0);
/** With a bell: how often it was asked what to do, until it was the second time. */
function rungOnce(): number {
  const bell = makePipe();
  if (bell === undefined) throw new Error('there is no pipe to be had');
  try {
    let asked = 0;
    const second = () => {
      asked += 1;
      return asked === 2;
    };
    const socket = new PacedSocket(server, { hasCoreToSpare: () => false }, bell.readFd, second);
    writeSync(bell.writeFd, 'xx');
    expect(socket.receive(target, 0, 1, 0)).toBe(-constants.errno.EAGAIN);
    expect(waitReadable(bell.readFd, 0)).toBe(0);
    return asked;
  } finally {
    closeSync(bell.readFd);
    closeSync(bell.writeFd);
  }
}
const isAwake = () => (libc.fcntl(server, F_GETFL, 0) & O_NONBLOCK) !== 0;

/** A period of waits for a client that is always there, and answers each with `requests`; it takes `ms` by the clock. */
function period(socket: PacedSocket, ms: number, requests = 1): boolean {
  for (let wait = 0; wait < WAITS_A_PERIOD; wait += 1) {
    writeSync(client, 'x');
    if (wait === WAITS_A_PERIOD - 1) now += ms;
    expect(socket.receive(target, 0, 1, requests)).toBe(1);
  }
  return isAwake();
}

describe('a socket', () => {
  test('that is silent hears its bell, however often it was rung', () => {
    expect(rungOnce()).toBe(2);
  });

  test('is tried awake after four periods asleep, and stays so while that is faster', () => {
    const socket = paced();
    const modes = [10, 10, 10, 10].map((ms) => period(socket, ms));
    for (let count = 0; count < 50; count += 1) modes.push(period(socket, 5));
    expect(modes).toEqual([false, false, false, ...Array(51).fill(true)]);
  });

  test('sleeps again where being awake is no faster, and tries it less and less often', () => {
    const socket = paced();
    const awake: number[] = [];
    for (let count = 0; count < 200; count += 1) if (period(socket, 10)) awake.push(count);
    // Four periods each time, of which the last is the one behind which it sleeps.
    const begins = awake.filter((count) => !awake.includes(count - 1));
    expect(begins).toEqual([3, 13, 29, 57, 109]);
    expect(awake).toEqual(begins.flatMap((count) => [0, 1, 2, 3].map((more) => count + more)));
  });

  test('stays awake over periods that something else has stretched', () => {
    const socket = paced();
    for (let count = 0; count < 4; count += 1) period(socket, 10);
    for (let count = 0; count < 20; count += 1) expect(period(socket, count % 5 < 3 ? 5 : 50)).toBe(true);
  });

  test('sleeps although some of the periods asleep were stretched', () => {
    const socket = paced();
    for (const ms of [10, 1_000, 10, 1_000]) period(socket, ms);
    expect([12, 12, 12, 12].map((ms) => period(socket, ms))).toEqual([true, true, true, false]);
  });

  test('compares being awake with how it slept last, not with how it once did', () => {
    const socket = paced();
    const ms = [...Array(8).fill(10), 2, 2, 2, 10, 10, 10, ...Array(50).fill(5)];
    const modes = ms.map((each) => period(socket, each));
    expect(modes.slice(0, 13)).toEqual(ms.slice(0, 13).map((_, count) => count >= 3 && count < 7));
    expect(modes.slice(13)).toEqual(Array(51).fill(true));
  });

  test('looks now and then whether sleeping has become faster', () => {
    const socket = paced();
    for (let count = 0; count < 3; count += 1) period(socket, 10);
    const asleep: number[] = [];
    for (let count = 0; count < 600; count += 1) if (!period(socket, isAwake() ? 5 : 10)) asleep.push(count);
    expect(asleep).toEqual([256, 257, 258, 515, 516, 517]);
  });

  test.each([
    ['no core is to spare', 1, false],
    ['the client sends many requests ahead', 3, true],
  ])('stays asleep while %s', (_, requests, spare) => {
    isSpare = spare;
    const socket = paced();
    for (let count = 0; count < 10; count += 1) expect(period(socket, 10, requests)).toBe(false);
  });

  test.each([true, false])(
    'lets who runs go on when it wakes, as long as many requests come at a time (a core to spare: %s)',
    (spare) => {
      isSpare = spare;
      const socket = paced();
      const policies = [1, 3, 3, 2, 3].map((requests) => {
        period(socket, 10, requests);
        return policy();
      });
      expect(policies).toEqual([SCHED_OTHER, SCHED_BATCH, SCHED_BATCH, SCHED_OTHER, SCHED_BATCH]);
      socket.close();
      expect(policy()).toBe(SCHED_OTHER);
    },
  );

  test('does not wait for what may be there, awake or asleep', () => {
    const socket = paced();
    expect(socket.receiveIfThere(target, 0, 1)).toBeLessThan(0);
    writeSync(client, 'y');
    expect(socket.receiveIfThere(target, 0, 1)).toBe(1);
    expect(target[0]).toBe('y'.charCodeAt(0));
    writeSync(client, 'z');
    expect(socket.receive(target, 0, 1, 1)).toBe(1);
    isSpare = false;
    period(socket, 10);
    expect(isAwake()).toBe(true); // the last glance was in that period
    period(socket, 10);
    expect(isAwake()).toBe(false);
  });
});
