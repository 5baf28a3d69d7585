import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { isUnderSystemd } from '../daemon/launch-service.js';
import { type ProgramEnd, runProgram } from '../kernel/run-program.js';

// The programs of the system that mounting needs are started here and nowhere else. Every argument is one word.

/** A journal may have to be replayed from a slow server; systemd has a limit of its own for the whole mount. */
const MOUNT_LIMIT_MS = 600_000;
const FSCK_LIMIT_MS = 24 * 3_600_000;
const SHORT_LIMIT_MS = 20_000;

export interface InnerMount {
  readonly fileSystem: string;
  readonly options: readonly string[];
  /** A node in /dev. */
  readonly node: string;
  readonly folder: string;
  readonly namespace: string | undefined;
  /** Options that the file system does not know are passed over. */
  readonly isSloppy: boolean;
}

/** mount(8) without helpers (-i): the file system itself. Never with -n, or umount(8) would not find back to us. */
export function mountFileSystem(mount: InnerMount, stop?: AbortSignal): Promise<ProgramEnd> {
  const { fileSystem, options, node, folder, namespace, isSloppy } = mount;
  const words = [
    ...['-i', '-t', fileSystem, '-o', options.join(',')],
    ...(isSloppy ? ['-s'] : []),
    ...namespaceWords(namespace),
    ...['--', node, folder],
  ];
  return runProgram('mount', words, {
    limitMs: MOUNT_LIMIT_MS,
    inOurGroup: true,
    ...(stop === undefined ? {} : { stop }),
  });
}

export interface PlainUnmount {
  readonly folder: string;
  readonly lazy: boolean;
  readonly force: boolean;
  /** Make it read-only where it cannot be unmounted. */
  readonly readOnly: boolean;
  readonly namespace: string | undefined;
}

/** umount(8) without helpers (-i). */
export function unmountFileSystem(unmount: PlainUnmount, limitMs: number): Promise<ProgramEnd> {
  const { folder, lazy, force, readOnly, namespace } = unmount;
  const words = [
    '-i',
    ...(lazy ? ['-l'] : []),
    ...(force ? ['-f'] : []),
    ...(readOnly ? ['-r'] : []),
    ...namespaceWords(namespace),
    ...['--', folder],
  ];
  return runProgram('umount', words, { limitMs, inOurGroup: true });
}

/** Where the program that checks a file system is; absent where the system has none. */
export function checkerOf(fileSystem: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(':')
    .map((folder) => join(folder, `fsck.${fileSystem}`))
    .find(isProgram);
}

/** Checks, and repairs what can be repaired without a question; or only looks. The status is that of fsck(8). */
export function checkFileSystem(
  checker: string,
  node: string,
  repair: boolean,
  stop?: AbortSignal,
): Promise<ProgramEnd> {
  const limits = { limitMs: FSCK_LIMIT_MS, ...(stop === undefined ? {} : { stop }) };
  return runProgram(checker, [repair ? '-a' : '-n', node], limits);
}

/** So that a file system that is mounted read-only does not write either (ext4 replays its journal otherwise). */
export function setReadOnly(node: string, readOnly: boolean): Promise<ProgramEnd> {
  return runProgram('blockdev', [readOnly ? '--setro' : '--setrw', node], { limitMs: SHORT_LIMIT_MS });
}

export function loadNbdModule(): Promise<ProgramEnd> {
  return runProgram('modprobe', ['nbd'], { limitMs: SHORT_LIMIT_MS });
}

/** Has systemd read its units again, where it runs. Answers whether it did. */
export async function reloadServiceManager(): Promise<boolean> {
  if (!isUnderSystemd()) return false;
  return (await runProgram('systemctl', ['daemon-reload'], { limitMs: 3 * SHORT_LIMIT_MS })).status === 0;
}

/** Whether the machine is going down, as far as process 1 says so. */
export async function isShuttingDown(): Promise<boolean> {
  if (!isUnderSystemd()) return false;
  const { stdout } = await runProgram('systemctl', ['is-system-running'], { limitMs: SHORT_LIMIT_MS });
  return stdout.trim() === 'stopping';
}

/** The first line of what a program complained of, without its name and the folder, which we say ourselves. */
export function complaint(end: ProgramEnd, folder: string): string {
  const lines = end.stderr.split('\n').map((line) => line.trim());
  const line =
    lines.find((each) => each !== '') ?? (end.isLate ? 'it did not end in time' : `it ended with status ${end.status}`);
  return line
    .replace(/^u?mount: /, '')
    .replace(`${folder}: `, '')
    .replace(/\.$/, '');
}

function namespaceWords(namespace: string | undefined): readonly string[] {
  return namespace === undefined ? [] : ['-N', namespace];
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
