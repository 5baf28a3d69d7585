import { join } from 'node:path';
import { expect } from 'vitest';
import { ok } from '../kernel/guest.js';
import { AS_IO_FLUSHER, ROOT, tsnbd } from '../kernel/programs.js';
import { KILL_AT_CALL } from '../kernel/test-programs.js';
import { long } from '../long.js';

const driver = join(ROOT, 'test/fault/drivers/kill-at-each-call.sh');
const LIMIT_MS = 1_700_000;

/** The calls that reach outside of the process, counted together; with --long those too that an attach makes for itself. */
const OUTSIDE = 'ioctl,connect,socketpair,bind,netlink-write,write-open,rename,unlink';
const INSIDE = ['mkdir,chmod', 'close', 'fcntl', 'shutdown', 'pthread_create', 'listen,accept4', 'setsockopt', 'fsync'];
export const calls = long ? [OUTSIDE, ...INSIDE] : [OUTSIDE];
/** Where an attach by the other interface differs. */
export const otherCalls = long ? calls : ['ioctl'];
/** For an attach in the background: command and process each count their own calls, so the command dies first. */
export const backgroundCalls = long ? OUTSIDE.split(',') : [];
/** An attach by ioctl asks nothing of netlink. */
export const otherBackgroundCalls = backgroundCalls.filter((kind) => kind !== 'netlink-write');

/** An attach makes more of those than this, or they are not counted. */
const OUTSIDE_CALLS_MIN = 10;

/** Kills the command at its first, second … such call until it attaches and detaches: the device is always free for the next. */
export async function expectCleanKills(kinds: string, command: string): Promise<void> {
  const drive = `${AS_IO_FLUSHER} ${driver} ${KILL_AT_CALL} ${kinds} '${tsnbd} -d nbd0'`;
  const lines = (await ok(`${drive} ${command}`, { limitMs: LIMIT_MS })).split('\n');
  const outcomes = lines.map((line) => line.split(' ').slice(1).join(' '));
  expect(new Set([...outcomes, 'killed', 'attached']), lines.join('\n')).toEqual(new Set(['killed', 'attached']));
  expect(outcomes.at(-1)).toBe('attached');
  expect(outcomes.length).toBeGreaterThan(kinds === OUTSIDE ? OUTSIDE_CALLS_MIN : 1);
}
