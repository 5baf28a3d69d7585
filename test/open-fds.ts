import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';

/** The fds that a process has open on the file at `path`. */
export function fdsOpenOn(path: string, pid: number | 'self' = 'self'): number[] {
  const real = realpathSync(path);
  const fds = readdirSync(`/proc/${pid}/fd`).map(Number);
  return fds.filter((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === real);
}

/** How many fds of this process are open on the file at `path`. */
export function openFdsOf(path: string): number {
  return fdsOpenOn(path).length;
}

/** The O_… flags of an open fd, as the kernel itself tells them. */
export function openFlags(fd: number, pid: number | 'self' = 'self'): number {
  const told = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))?.[1];
  return Number.parseInt(told ?? '', 8);
}

/**
 * What an fd of this process is open on, as `socket:[4711]`, or '' if it is closed. Two that are the same are of the same
 * file; of another, the number was closed meanwhile and another thread's open got it.
 */
export function openedAs(fd: number): string {
  return linkOf(`/proc/self/fd/${fd}`);
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ''; // the one by which the folder was read, or another thread's, is closed already
  }
}
