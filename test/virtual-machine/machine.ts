import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, cpSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { succeed } from '../interop/served.js';

/** Debian's kernel, which scripts/setup unpacks; what it needs for a disk is built in. */
const KERNELS = '/usr/local/lib/tsnbd-bench/machine/usr/lib/modules';
const [VERSION = ''] = readdirSync(KERNELS);
const REPOSITORY = dirname(dirname(import.meta.dirname));
const TSNBD_DISK_BYTES = 400 << 20;
const BOOT_LIMIT_MS = 240_000;

/** The root file system of a machine, as a folder: busybox, and an /init of this folder. */
export function makeRoot(root: string, init: string): void {
  for (const name of ['bin', 'data', 'dev', 'proc', 'run', 'sys', 'tmp'])
    mkdirSync(join(root, name), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  copyFileSync(join(import.meta.dirname, init), join(root, 'init'));
}

/** Brings files, programs and libraries, with the libraries that they need, to where they are on this machine. */
function bringPrograms(root: string, files: readonly string[]): void {
  const libraries = execFileSync('ldd', files, { encoding: 'utf8' }).match(/(?<=\s)\/\S+(?= \()/g) ?? [];
  for (const path of new Set([...files, ...libraries])) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    cpSync(path, join(root, path), { dereference: true });
  }
}

/** Brings our programs as /tsnbd/dist, Node to run them, and ss. */
function bringTsnbd(root: string): void {
  const native = readdirSync(join(REPOSITORY, 'node_modules/@yuuang'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.node'))
    .map((name) => join(REPOSITORY, 'node_modules/@yuuang', name));
  bringPrograms(root, [process.execPath, '/usr/bin/ss', ...native]);
  for (const name of ['dist', 'node_modules/ffi-rs', 'node_modules/@yuuang']) {
    mkdirSync(join(root, 'tsnbd', name), { recursive: true });
    cpSync(join(REPOSITORY, name), join(root, 'tsnbd', name), { recursive: true });
  }
}

/** A raw disk of `sizeBytes` with a file system that holds what is in `root`. */
export async function makeDisk(path: string, sizeBytes: number, root: string): Promise<void> {
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  await succeed('mkfs.ext4', '-q', '-d', root, path);
}

/** Brings modules of the kernel to the root folder, as busybox can load them: drivers/block/nbd becomes /nbd.ko. */
function bringModules(root: string, names: readonly string[]): void {
  for (const name of names) {
    const packed = join(KERNELS, VERSION, 'kernel', `${name}.ko.xz`);
    writeFileSync(join(root, `${basename(name)}.ko`), execFileSync('xz', ['-dc', packed], { maxBuffer: 2 ** 24 }));
  }
}

/** Boots a machine of two processors, in which `init` of this folder finds our programs, and begin.sh; its files lie in `folder`. */
export async function bootTsnbd(folder: string, init: string, memoryMiB: number): Promise<Machine> {
  const [root, disk] = [join(folder, 'root'), join(folder, 'disk.raw')];
  makeRoot(root, init);
  copyFileSync(join(import.meta.dirname, 'begin.sh'), join(root, 'begin.sh'));
  bringTsnbd(root);
  bringModules(root, ['drivers/block/nbd', 'net/ipv4/inet_diag', 'net/ipv4/tcp_diag']);
  await makeDisk(disk, TSNBD_DISK_BYTES, root);
  return boot(disk, { processors: 2, memoryMiB });
}

export interface Machine {
  /** Waits for a line on the console, and answers what it matched; rejects when the machine ends without it. */
  says(awaited: RegExp): Promise<RegExpExecArray>;
  kill(): Promise<void>;
  /** Its exit status, once it has shut down. */
  readonly status: Promise<number | null>;
}

/** Boots a machine from `disk`, a path or the URI of an export, by emulation. */
export function boot(disk: string, { processors = 1, memoryMiB = 256 } = {}): Machine {
  const child = spawn(
    'qemu-system-x86_64',
    [
      // A thread for each processor would now and then run into an instruction that the kernel just changes: 'Oops: int3' (seen).
      ...[
        '-accel',
        'tcg,thread=single',
        '-m',
        String(memoryMiB),
        '-smp',
        String(processors),
        '-nodefaults',
        '-display',
        'none',
      ],
      ...['-serial', 'stdio', '-no-reboot', '-kernel', join(KERNELS, VERSION, 'vmlinuz')],
      // On a busy machine the virtual timer is late for the kernel's check of it.
      ...['-append', 'console=ttyS0 quiet panic=-1 no_timer_check root=/dev/nvme0n1 rw init=/init'],
      ...['-drive', `if=none,id=disk,format=raw,file=${disk}`, '-device', 'nvme,drive=disk,serial=1'],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const limit = setTimeout(() => child.kill('SIGKILL'), BOOT_LIMIT_MS);
  const status = once(child, 'exit').then(([code]) => {
    clearTimeout(limit);
    return code as number | null;
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    said += piece;
  });
  return {
    status,
    async says(awaited) {
      for (;;) {
        const match = awaited.exec(said);
        if (match !== null) return match;
        const more = once(child.stdout, 'data').then(() => 'more');
        if ((await Promise.race([more, status])) === 'more') continue;
        const last = awaited.exec(said);
        if (last !== null) return last;
        throw new Error(`the machine ended without ${awaited}: ${said}`);
      }
    },
    async kill() {
      child.kill('SIGKILL');
      await status;
    },
  };
}
