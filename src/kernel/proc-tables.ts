/** A mount as /proc/PID/mountinfo lists it (proc_pid_mountinfo(5)). */
export interface Mount {
  /** 'MAJOR:MINOR' of the file system; major 0 for those that make up a number, btrfs among them. */
  readonly deviceNumber: string;
  readonly mountPoint: string;
  readonly fileSystem: string;
  /** What was mounted, as mount(2) was told: often a path, but any text. */
  readonly source: string;
}

/** Lines that are no mounts are left out. */
export function parseMountinfo(text: string): readonly Mount[] {
  return lines(text).flatMap((line) => {
    const words = line.split(' ');
    // Field 7 and on are optional fields, any number of them, up to a single '-'.
    const dash = words.indexOf('-', 6);
    const [deviceNumber, mountPoint] = [words[2], words[4]];
    const [fileSystem, source] = [words[dash + 1], words[dash + 2]];
    if (dash === -1 || !deviceNumber || !mountPoint || !fileSystem || source === undefined) return [];
    return [{ deviceNumber, mountPoint: unescapeOctal(mountPoint), fileSystem, source: unescapeOctal(source) }];
  });
}

/** The paths of /proc/swaps: partitions and files. */
export function parseSwaps(text: string): readonly string[] {
  return lines(text)
    .slice(1) // the heading
    .flatMap((line) => {
      const path = line.split(/[ \t]/)[0];
      return path ? [unescapeOctal(path)] : [];
    });
}

/** The file system types that live on block devices: the lines of /proc/filesystems without 'nodev'. */
export function parseBlockFileSystems(text: string): ReadonlySet<string> {
  return new Set(lines(text).flatMap((line) => (line.startsWith('\t') ? [line.slice(1)] : [])));
}

/** Field 22 of /proc/PID/stat, clock ticks since boot. The name in field 2 may hold spaces and parentheses. */
export function parseStartTime(stat: string): number | undefined {
  const behindName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const startTime = behindName[22 - 3];
  return startTime !== undefined && /^[0-9]+$/.test(startTime) ? Number(startTime) : undefined;
}

/**
 * Whether /proc/PID/stat is that of a process that has ended, all its threads with it, and was not waited for: where process 1
 * waits for no children, as in many containers, it stays for ever. One thread may end before the others: fields 3 and 20.
 */
export function isZombie(stat: string): boolean {
  const behindName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return /^[ZX]$/.test(behindName[0] ?? '') && Number(behindName[20 - 3]) <= 1;
}

/** Whether the process of /proc/PID/stat was stopped by a signal, and goes on by SIGCONT; not by a tracer. */
export function isStopped(stat: string): boolean {
  return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T ');
}

/** 'MAJOR:MINOR' of a device number as stat(2) gives it (glibc, <bits/sysmacros.h>). */
export function deviceNumberText(rdev: number): string {
  const major = Math.floor(rdev / 2 ** 8) % 2 ** 12;
  const minor = (rdev % 2 ** 8) + (Math.floor(rdev / 2 ** 20) % 2 ** 12) * 2 ** 8;
  return `${major}:${minor}`;
}

function lines(text: string): readonly string[] {
  return text.split('\n').filter((line) => line !== '');
}

/** The kernel writes space, tab, newline, backslash and '#' in these tables as \ and three octal digits. */
function unescapeOctal(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
