import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Supervisor } from '#tsnbd/attach/reconnect.js';
import type { requestCounts } from '#tsnbd/kernel/sysfs.js';

// What a kernel and a server cannot be made to do when it is wanted: here they are puppets.

let inFlight = 0;
vi.mock(import('#tsnbd/kernel/sysfs.js'), async (original) => ({
  ...(await original()),
  requestCounts: (): ReturnType<typeof requestCounts> => ({ inFlight, completed: 0 }),
}));

/** What each attempt to connect comes to: an error of the server's, of the kernel's, or what becomes of the socket. */
type Attempt =
  | { readonly renew: string }
  | { readonly replace: string }
  | 'not taken'
  | 'taken, lost at once'
  | 'taken, one is left to replace'
  | 'taken';

function watched(
  attempts: readonly Attempt[],
  patience: { deadTimeoutSeconds?: number; retryLimitSeconds?: number } = {},
  isLost: 'none' | 'some' | 'all' = 'all',
  { answers, unheard = [], isGone = false }: { answers?: boolean; unheard?: readonly number[]; isGone?: boolean } = {},
) {
  const cuts: number[] = [];
  const told: string[] = [];
  const sockets: number[] = [];
  const fails: number[] = [];
  const probes: number[] = [];
  const rest = [...attempts];
  let lost: 'none' | 'some' | 'all' = 'none';
  let made = 0;
  let disconnects = 0;
  let current = 0;
  let end: (end: { result: number }) => void = () => {};
  const link = {
    takeOver: () => {},
    lost: () => lost,
    isUnheard: () => unheard.length > 0,
    cutUnheard: (limitMs: number) => {
      cuts.push(limitMs);
      if (!unheard.some((ms) => ms >= limitMs)) return false;
      lost = 'all';
      return true;
    },
    replace: async (socket: number) => {
      const attempt = rest.shift() ?? 'taken';
      if (typeof attempt === 'object' && 'replace' in attempt) throw new Error(attempt.replace);
      lost = attempt === 'taken, one is left to replace' ? 'some' : attempt === 'taken' ? 'none' : 'all';
      if (attempt === 'not taken') return undefined;
      const old = current;
      current = socket;
      return old;
    },
    failRequests: async () => void fails.push(rest.length),
    mayFailRequests: () => {},
    isGone: async () => isGone,
  };
  const device = {
    name: 'nbd-that-is-not-there',
    kernelApi: 'netlink',
    link,
    ended: new Promise<{ result: number }>((resolve) => {
      end = resolve;
    }),
    disconnect: () => {
      disconnects += 1;
      setTimeout(end, 1_000, { result: 0 });
    },
    resize: async () => undefined,
    cut: () => {
      lost = 'all';
    },
  } as const;
  const source = {
    server: 'the server',
    renew: async () => {
      const [attempt] = rest;
      if (typeof attempt === 'object' && 'renew' in attempt) {
        rest.shift();
        throw new Error(attempt.renew);
      }
      made += 1;
      return made;
    },
    isAnswering: (stop: AbortSignal) =>
      new Promise<boolean>((resolve) => {
        probes.push(performance.now());
        if (answers !== undefined) resolve(answers);
        stop.addEventListener('abort', () => resolve(false));
      }),
    discard: (socket: number) => void sockets.push(socket),
  };
  const limits = { deadTimeoutSeconds: 300, retryLimitSeconds: undefined, ...patience };
  const supervisor = new Supervisor(device, link, source, limits, (event) => {
    if (event.kind === 'notice') told.push(event.text);
  });
  supervisor.start();
  lost = isLost;
  return { supervisor, told, sockets, fails, probes, cuts, disconnects: () => disconnects };
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  inFlight = 0;
  vi.useRealTimers();
});

test('a lost connection is replaced until one stays; what fails alike is told once, and no socket is forgotten', async () => {
  const refused = { renew: 'connection refused' };
  const attempts = [refused, refused, { replace: 'the kernel is busy' }, 'not taken', 'taken, lost at once'] as const;
  const { supervisor, told, sockets, fails } = watched(attempts);
  await vi.waitFor(() => expect(supervisor.status()).toMatchObject({ state: 'connected', reconnects: 2 }), 10_000);
  await supervisor.stop();
  expect(told).toEqual([
    'the connection to the server is lost; connecting again',
    'connection refused',
    'the kernel is busy',
    expect.stringMatching(/^connected to the server again after \d+\.\d s$/),
  ]);
  // 1 and 2 were not taken; 3 was in the place of the first, 4 in its place.
  expect(sockets).toEqual([1, 2, 0, 3]);
  expect(fails).toEqual([]);
});

test('a device that somebody else has disconnected is not connected again', async () => {
  const { supervisor, told, sockets, disconnects } = watched([], {}, 'all', { isGone: true });
  await vi.waitFor(() => expect(disconnects()).toBe(1), 10_000);
  await supervisor.stop();
  expect({ told, sockets }).toEqual({ told: [], sockets: [] });
});

test('requests are made to fail once, after their time, and the device is given up after its own', async () => {
  const attempts = Array.from({ length: 100 }, (): Attempt => ({ renew: 'no route' }));
  const { supervisor, told, fails } = watched(attempts, { deadTimeoutSeconds: 60, retryLimitSeconds: 3600 });
  const pass = async (seconds: number, text: string) => {
    await vi.waitFor(() => expect(told).toContain('no route'), 10_000);
    vi.advanceTimersByTime(seconds * 1_000);
    await vi.waitFor(() => expect(told.at(-1)).toBe(text), 10_000);
  };
  await pass(40, 'no route');
  expect(fails).toEqual([]);
  await pass(20, 'no connection to the server for 60 s: requests fail until there is one');
  await pass(3_540, 'no connection to the server for 3600 s: giving up');
  expect(fails).toHaveLength(1);
  await sleep(700); // a device takes its time to end
  expect(told.at(-1)).toMatch(/giving up$/);
  await supervisor.stop();
});

test('requests are made to fail again when a connection that ended that did not stay', async () => {
  const attempts = Array.from({ length: 100 }, (): Attempt => ({ renew: 'no route' }));
  attempts[3] = 'taken, lost at once';
  const { supervisor, told, fails } = watched(attempts, { deadTimeoutSeconds: 0 });
  await vi.waitFor(() => expect(fails).toEqual([99, 96]), 10_000);
  await supervisor.stop();
  expect(told.filter((text) => text.includes('requests fail'))).toHaveLength(1);
});

test('another connection is made when it is asked for', async () => {
  const { supervisor, told, sockets } = watched(['not taken', 'taken'], {}, 'none');
  await supervisor.connectAgain();
  expect(supervisor.status()).toMatchObject({ state: 'connected', reconnects: 1 });
  expect(sockets).toEqual([1, 0]); // the first was not taken; then the one before is out of use
  expect(told[0]).toBe('the connection is made again, as it was asked for');
  await supervisor.stop();
});

test('a question that is broken off by the end is no silence of the server', async () => {
  inFlight = 1;
  const { supervisor, told, probes } = watched([], {}, 'none');
  await vi.waitFor(() => {
    vi.advanceTimersByTime(5_000);
    expect(probes).toHaveLength(1);
  }, 10_000);
  await supervisor.stop();
  expect(told).toEqual([]);
});

test('while one of several connections is left nothing fails, and each of the others is replaced', async () => {
  const attempts = [{ renew: 'one client too many' }, 'taken, one is left to replace', 'taken'] as const;
  const patience = { deadTimeoutSeconds: 0, retryLimitSeconds: 0 };
  const { supervisor, told, sockets, fails } = watched(attempts, patience, 'some');
  expect(supervisor.status()).toMatchObject({ state: 'connected', reconnects: 0 });
  await vi.waitFor(() => expect(supervisor.status()).toMatchObject({ state: 'connected', reconnects: 2 }), 10_000);
  await supervisor.stop();
  expect(told).toEqual([
    'a connection to the server is lost; connecting again',
    'one client too many',
    expect.stringMatching(/^connected to the server again after \d+\.\d s$/),
  ]);
  expect(sockets).toEqual([0, 1]);
  expect(fails).toEqual([]);
});

test('a silent server counts as lost after the retry limit too, where that is the shorter', async () => {
  inFlight = 1;
  const attempts = Array.from({ length: 100 }, (): Attempt => ({ renew: 'no route' }));
  const patience = { deadTimeoutSeconds: 300, retryLimitSeconds: 60 };
  const { supervisor, told } = watched(attempts, patience, 'none', { answers: false });
  await vi.waitFor(() => {
    vi.advanceTimersByTime(told.length === 0 ? 5_000 : 60_000);
    expect(told.at(-1)).toBe('no connection to the server for 60 s: giving up');
  }, 10_000);
  await supervisor.stop();
  expect(told).toContain('the server has not answered for 60 s');
});

test('a connection that TCP waits on is given up although the server answers others, a slow one never', async () => {
  inFlight = 1;
  const pass = () => vi.advanceTimersByTime(5_000);
  const slow = watched([], { deadTimeoutSeconds: 30 }, 'none', { answers: true });
  await vi.waitFor(() => {
    pass();
    expect(slow.cuts.length).toBeGreaterThan(10);
  }, 10_000);
  await slow.supervisor.stop();
  expect(slow.told).toEqual([]);

  const unheard = watched(['taken'], { deadTimeoutSeconds: 30 }, 'none', { answers: true, unheard: [30_000] });
  await vi.waitFor(() => {
    pass();
    expect(unheard.told.at(-1)).toMatch(/^connected to the server again/);
  }, 10_000);
  await unheard.supervisor.stop();
  expect(unheard.told[0]).toBe('the server has acknowledged nothing on a connection for 30 s');
  expect([...slow.cuts, ...unheard.cuts].every((limitMs) => limitMs === 30_000)).toBe(true);
});
