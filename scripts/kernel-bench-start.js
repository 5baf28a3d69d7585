// What a guest of the bench needs from its host, and what it is started with.
import { accessSync, constants, existsSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const checkout = dirname(dirname(fileURLToPath(import.meta.url)));

/** Below this much free space /dev/shm is not used: the guest's memory and the work folder must fit into it. */
const memoryFolderBytesMin = 4 * 2 ** 30;

/** What keeps this machine from booting this kernel, as a sentence; see kernel-bench-kernels.js. */
export function missing(/** @type {import('./kernel-bench-kernels.js').Kernel} */ { program }) {
  if (!existsSync(program)) return `${program} is missing: run scripts/setup`;
  if (!existsSync('/usr/bin/busybox') && !existsSync('/bin/busybox'))
    return 'busybox is missing: run scripts/setup (Debian package busybox-static)';
  return undefined;
}

/** Where the guest's memory file and the work folder go: RAM if there is enough of it. */
export function baseFolder() {
  try {
    accessSync('/dev/shm', constants.W_OK);
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (bavail * bsize >= memoryFolderBytesMin) return '/dev/shm';
  } catch {
    // No such folder here.
  }
  return tmpdir();
}

/**
 * Writes the two files that the guest starts: init, its process 1, and agent, which takes our orders. They set the names
 * that kernel-bench-init and kernel-bench-agent use, and every command sees.
 * @param {string} control the folder for orders and output
 * @param {string} workDir
 * @param {string} modules
 * @param {{ nbd: string, preload: string }} options
 */
export function writeStarters(control, workDir, modules, { nbd, preload }) {
  const names = {
    BENCH_CHECKOUT: checkout,
    BENCH_NODE: dirname(dirname(process.execPath)),
    BENCH_WORK: workDir,
    BENCH_CONTROL: control,
    BENCH_MODULES: modules,
    BENCH_NBD: nbd,
    BENCH_PRELOAD: preload,
    PATH: `${dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: '/root',
    LANG: 'C.UTF-8',
  };
  const exports = Object.entries(names).map(([name, value]) => `export ${name}=${quote(value)}\n`);
  for (const part of ['init', 'agent']) {
    const script = quote(join(checkout, 'scripts', `kernel-bench-${part}`));
    writeFileSync(join(control, part), `#!/bin/sh\n${exports.join('')}exec sh ${script}\n`, { mode: 0o755 });
  }
}

/**
 * @param {string} folder
 * @param {string} control
 * @param {string} memory
 */
export function kernelArguments(folder, control, memory) {
  return [
    `mem=${memory}`,
    // What would lie in the user's home otherwise, where guests meet.
    `uml_dir=${folder}/`,
    'umid=guest',
    'root=/dev/root',
    'rootfstype=hostfs',
    'rootflags=/',
    'ro',
    // Else it hides the host's /dev/shm, where our folder may lie.
    'devtmpfs.mount=0',
    'loglevel=4',
    'panic=-1',
    'con=null',
    'con0=null,fd:1',
    'ssl0=fd:3',
    `init=${control}/init`,
  ];
}

/**
 * A word of sh that stands for exactly this text.
 * @param {string} text
 */
export function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
