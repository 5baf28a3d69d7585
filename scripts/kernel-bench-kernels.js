// The kernels that the bench can boot, all of them User-Mode Linux with nbd.
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/**
 * @typedef {object} Kernel
 * @property {string} program
 * @property {readonly string[]} parameters of this kernel alone
 * @property {string} modules the folder that has, in one named as its version, its modules
 */

/** The kernel of Debian 12, from its package. @type {Kernel} */
const debian12 = { program: '/usr/bin/linux.uml', parameters: [], modules: '/usr/lib/uml/modules' };

/** A newer one, which scripts/setup has put there. */
const newer = unpackedIn('/usr/local/lib/tsnbd-bench/kernel');

/** The newer one where it is there, unless `name` is debian12. */
export function chosenKernel(name = process.env.TSNBD_BENCH_KERNEL) {
  return name === 'debian12' || !existsSync(newer.program) ? debian12 : newer;
}

/**
 * Its page faults are three times as fast with seccomp in place of ptrace, and it sees several pages of a file by one.
 * @param {string} folder
 * @returns {Kernel}
 */
function unpackedIn(folder) {
  return {
    program: join(folder, 'usr/bin/linux.uml'),
    parameters: ['seccomp=auto'],
    modules: join(folder, 'usr/lib/uml/modules'),
  };
}
