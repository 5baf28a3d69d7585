// The kernels that the bench can boot, all of them User-Mode Linux with nbd.
import { existsSync } from 'node:fs';

/**
 * @typedef {object} Kernel
 * @property {string} program
 * @property {readonly string[]} parameters of this kernel alone
 * @property {string} modules the folder that has, in one named as its version, its modules
 */

/** The kernel of Debian 12, from its package. @type {Kernel} */
const debian12 = { program: '/usr/bin/linux.uml', parameters: [], modules: '/usr/lib/uml/modules' };

const folder = '/usr/local/lib/tsnbd-bench/kernel';

/**
 * A newer one, which scripts/setup has put there. Its page faults are three times as fast with seccomp in place of ptrace,
 * and it sees several pages of a file by one.
 * @type {Kernel}
 */
const newer = {
  program: `${folder}/usr/bin/linux.uml`,
  parameters: ['seccomp=auto'],
  modules: `${folder}/usr/lib/uml/modules`,
};

/** The newer one where it is there, unless `name` is debian12. */
export function chosenKernel(name = process.env.TSNBD_BENCH_KERNEL) {
  return name === 'debian12' || !existsSync(newer.program) ? debian12 : newer;
}
