// What the kernel says about a server's processes: all that descend from the one that was started.
import { readdirSync, readFileSync } from 'node:fs';

const TICKS_PER_SECOND = 100;

/**
 * @typedef {object} Stat
 * @property {number} pid
 * @property {string} state a letter, Z for a process that has ended
 * @property {number} parent
 * @property {number} ticks of processor time: its own, and of its children that have ended
 */

/**
 * Processor time of the process and all its descendants, those that have ended included; 10 ms is the unit.
 * @param {number} pid
 */
export function cpuSeconds(pid) {
  return family(pid).reduce((sum, { ticks }) => sum + ticks, 0) / TICKS_PER_SECOND;
}

/**
 * Proportional set size of the process and its descendants: a page shared by n processes counts for 1/n.
 * @param {number} pid
 */
export function pssBytes(pid) {
  return family(pid).reduce((sum, member) => sum + ownPssBytes(member.pid), 0);
}

/** @param {number} pid */
function ownPssBytes(pid) {
  try {
    const kib = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1];
    return Number(kib ?? 0) * 1024;
  } catch {
    // It has just ended.
    return 0;
  }
}

/**
 * Whether a process has not ended. One that only waits for its parent, which may be slow if it is init, has.
 * @param {number} pid
 */
export function isAlive(pid) {
  const found = stat(String(pid));
  return found !== undefined && found.state !== 'Z';
}

/** @param {number} root */
function family(root) {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => stat(name) ?? []);
  const found = all.filter(({ pid }) => pid === root);
  // Each turn adds the children of the one before; found grows while it is walked.
  for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid));
  return found;
}

/**
 * @param {string} pid
 * @returns {Stat | undefined} of a process that is still there
 */
function stat(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in parentheses, may hold anything. Numbered as proc(5) does: 3 state, 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const [state = ''] = fields;
    const field = (/** @type {number} */ number) => Number(fields[number - 3]);
    return { pid: Number(pid), state, parent: field(4), ticks: field(14) + field(15) + field(16) + field(17) };
  } catch {
    return undefined;
  }
}
