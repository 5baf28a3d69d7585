import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { readLink, readText } from './kernel-files.js';
import { isZombie, parseStartTime } from './proc-tables.js';

// A device that was set up by netlink outlives its process. The kernel keeps a text for it (`backend` in sysfs), so ours
// carry the process that answers for them; whoever finds one whose process is dead may take it down, and nobody touches
// what carries another text. `pid` in sysfs is no such proof: it is any thread's, and numbers come again.

const { ENOENT, ESRCH } = constants.errno;

const mark = 'tsnbd';
let serial = 0;

/** What a device carries that no process answers for, by its user's wish. */
const alone = 'alone';

/** A text that no other device has or had: this boot, this process, and the how-manieth device of it. */
export function newIdentifier(unattended: boolean): string {
  serial += 1;
  const startTime = parseStartTime(readFileSync('/proc/self/stat', 'utf8'));
  return [mark, ...surroundings(), process.pid, startTime, serial, ...(unattended ? [alone] : [])].join(':');
}

/** What matches every text that this process gives, as a shell would. */
export function ownMarks(): string {
  return [mark, ...surroundings(), process.pid, '*'].join(':');
}

/** Whether a text looks like one of ours. */
export function isMark(text: string): boolean {
  return text.split(':')[0] === mark;
}

/** Whether `backend` is a text of ours for a device that no process answers for. */
export function isUnattended(backend: string | undefined): boolean {
  const words = (backend ?? '').split(':');
  return words[0] === mark && words.at(-1) === alone;
}

/**
 * Whether `backend` is a text of ours whose process has ended. Where that cannot be told for certain (another boot, another
 * namespace of process numbers or of clocks, a /proc that cannot be read), it has not.
 */
export function isOfDeadProcess(backend: string | undefined, root = ''): boolean {
  const words = (backend ?? '').split(':');
  const [pid = '', startTime = '', ...rest] = words.slice(1 + surroundings(root).length);
  const ours = [mark, ...surroundings(root)].every((word, index) => words[index] === word && word !== '');
  if (!ours || rest.length !== 1 || !/^[1-9][0-9]*$/.test(pid) || !/^[0-9]+$/.test(startTime)) return false;
  return hasEnded(Number(pid), Number(startTime), root);
}

/** Where a process number and a start time mean what they mean here. */
function surroundings(root = ''): readonly string[] {
  const bootId = (readText(`${root}/proc/sys/kernel/random/boot_id`) ?? '').trim();
  const namespaces = ['pid', 'time'].map((kind) => {
    // Kernels without namespaces of clocks (before 5.6) have no such link.
    return /\[([0-9]+)\]$/.exec(readLink(`${root}/proc/self/ns/${kind}`) ?? '')?.[1] ?? 'none';
  });
  return [bootId, ...namespaces];
}

function hasEnded(pid: number, startTime: number, root: string): boolean {
  try {
    const stat = readFileSync(`${root}/proc/${pid}/stat`, 'utf8');
    const found = parseStartTime(stat);
    return isZombie(stat) || (found !== undefined && found !== startTime);
  } catch (error) {
    const { errno = 0 } = error as NodeJS.ErrnoException;
    return -errno === ENOENT || -errno === ESRCH; // any other failure says nothing
  }
}
