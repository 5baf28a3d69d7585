// What a run makes on this machine and must not leave there, however it ends: its processes and its folder.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { KEPT_LIMIT, putBack, SEND_LIMIT } from './send-limit.js';

/** @typedef {import('node:child_process').ChildProcess} ChildProcess */

/**
 * Waits for the bench's end, whatever it is, and does what it could not: kills the process groups that it was told of and
 * removes the folder. A line `+PID` adds a group, `-PID` takes it away; files `*.daemon` hold those of programs that
 * leave the group they were started in. Puts back a limit of the system that was changed (send-limit.js).
 */
const guard = `
groups=' '
while read -r line; do
  case $line in
    +*) groups="$groups\${line#+} " ;;
    -*) groups="\${groups%% \${line#-} *} \${groups#* \${line#-} }" ;;
  esac
done
if [ -e "$1/${KEPT_LIMIT}" ]; then cat "$1/${KEPT_LIMIT}" >${SEND_LIMIT}; fi
for group in $groups $(cat "$1"/*.daemon 2>/dev/null); do kill -s KILL -- "-$group" 2>/dev/null; done
rm -rf "$1"`;

/** The processes and the folder of a run. */
export class Owned {
  /** @type {Set<ChildProcess>} */
  #children = new Set();
  #guard;

  /** @param {string} parent where the folder is made */
  constructor(parent) {
    this.folder = mkdtempSync(join(parent, 'tsnbd-bench-'));
    this.#guard = spawn('sh', ['-c', guard, 'sh', this.folder], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#guard.unref();
    this.#guard.stdin.on('error', () => {});
    process.on('exit', () => this.destroy());
    for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
      process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }

  /**
   * Starts a program in a process group of its own.
   * @param {string} program
   * @param {readonly string[]} args
   * @param {import('node:child_process').StdioOptions} stdio
   */
  start(program, args, stdio) {
    const child = spawn(program, args, { detached: true, cwd: this.folder, stdio });
    if (child.pid === undefined) return child;
    this.#children.add(child);
    this.#guard.stdin.write(`+${child.pid}\n`);
    return child;
  }

  /**
   * Ends what is left of a program's group once the program itself has ended.
   * @param {ChildProcess} child
   */
  ended(child) {
    killGroup(child.pid);
    this.#children.delete(child);
    this.#guard.stdin.write(`-${child.pid}\n`);
  }

  /** Synchronous, for exit handlers; may be called again. */
  destroy() {
    for (const { pid } of this.#children) killGroup(pid);
    this.#children.clear();
    putBack(this.folder);
    for (const name of this.#daemonFiles()) killGroup(Number(readFileSync(join(this.folder, name), 'utf8')));
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
    this.#guard.kill('SIGKILL');
  }

  #daemonFiles() {
    try {
      return readdirSync(this.folder).filter((name) => name.endsWith('.daemon'));
    } catch {
      return [];
    }
  }
}

/** @param {number | undefined} pid */
function killGroup(pid) {
  try {
    if (pid) process.kill(-pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}
