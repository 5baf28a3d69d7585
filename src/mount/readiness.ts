import { accessSync, constants } from 'node:fs';
import { runProgram } from '../kernel/run-program.js';
import { nbdPresence } from '../kernel/sysfs.js';

const LIMIT_MS = 20_000;
const PROGRAMS = ['/sbin/mount.tsnbd', '/sbin/umount.tsnbd'];

/** Why the kernel would not attach, or would show no partitions; absent where it is ready or can be made so. */
export async function moduleProblem(): Promise<string | undefined> {
  const { loaded, maxPart } = nbdPresence();
  if (loaded) return maxPart > 0 ? undefined : 'the nbd module is loaded without partitions (max_part=0)';
  const { status } = await runProgram('modprobe', ['--dry-run', 'nbd'], { limitMs: LIMIT_MS });
  return status === 0 ? undefined : 'this kernel has no nbd module';
}

/** Why mount(8) and umount(8) would not come to us; they look nowhere else. */
export async function installedHelperProblem(): Promise<string | undefined> {
  for (const program of PROGRAMS) {
    try {
      accessSync(program, constants.X_OK);
    } catch {
      return `${program} is not there; run: tsnbd install`;
    }
    // It starts Node, and tells what is missing for that.
    const { status, stderr } = await runProgram(program, ['--version'], { limitMs: LIMIT_MS });
    if (status !== 0) return stderr.trim() || `${program} does not run`;
  }
  return undefined;
}
