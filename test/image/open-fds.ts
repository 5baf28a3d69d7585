import { readdirSync, readlinkSync, realpathSync } from 'node:fs';

/** How many fds of this process are open on the file at `path`. */
export function openFdsOf(path: string): number {
  const real = realpathSync(path);
  return readdirSync('/proc/self/fd').filter((fd) => linkOf(fd) === real).length;
}

function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ''; // the one by which the folder was read, or another thread's, is closed already
  }
}
