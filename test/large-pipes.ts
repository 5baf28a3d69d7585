import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { libc } from '#tsnbd/kernel/libc.js';

/** fcntl(2); the kernel's <linux/fcntl.h> */
const F_GETPIPE_SZ = 1032;
const LARGE_BYTES = 1_048_576;

/** Whether anybody may have a send buffer for large replies. */
export const isSendLimitLarge = Number(readFileSync('/proc/sys/net/core/wmem_max', 'latin1')) >= LARGE_BYTES;
/** Whether large reads go by reference here, over unix sockets: not with one core, nor into a small send buffer. */
export const areReadsPiped = availableParallelism() > 1 && (isSendLimitLarge || process.getuid?.() === 0);

/** How many pipes a process has that hold 1 MiB: each is a connection's whose large reads go by reference (piped-reads). */
export function largePipes(pid: number | 'self' = 'self'): number {
  const folder = `/proc/${pid}/fd`;
  const pipes = new Set(readdirSync(folder).flatMap((fd) => largePipe(`${folder}/${fd}`)));
  return pipes.size;
}

function largePipe(path: string): string[] {
  try {
    const name = readlinkSync(path);
    if (!name.startsWith('pipe:')) return [];
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const bytes = libc.fcntl(fd, F_GETPIPE_SZ, 0);
    closeSync(fd);
    return bytes >= LARGE_BYTES ? [name] : [];
  } catch {
    return []; // closed meanwhile
  }
}
