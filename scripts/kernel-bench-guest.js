// Boots the bench's kernel (User-Mode Linux with nbd) and runs commands in it: the one implementation behind
// scripts/kernel-bench and the kernel tests. The guest's side is kernel-bench-init and kernel-bench-agent.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chosenKernel } from './kernel-bench-kernels.js';
import { GrowingFile } from './kernel-bench-output.js';
import { baseFolder, kernelArguments, missing, quote, writeStarters } from './kernel-bench-start.js';

/**
 * Starts the guest's kernel. Its memory is a file; in huge pages, on a file system that only it sees, what runs in it takes
 * four fifths of the time (measured). Who may not mount has it in ordinary pages.
 */
const starter = `ulimit -c 0
in_huge_pages='mount -t tmpfs -o huge=always,mode=700 tmpfs "$TMPDIR" && exec "$@"'
unshare --mount sh -c "$in_huge_pages" sh true 2>/dev/null && exec unshare --mount sh -c "$in_huge_pages" sh "$@"
exec "$@"`;
/** Waits on the host for our end, whatever it is, and cleans up if we could not. */
const guard = 'read -r _; kill -s KILL -- "-$1"; sleep 1; rm -rf "$2"';

/** What systemd does is on the console, a line each. */
const systemdArguments = ['systemd.show_status=1', 'systemd.log_color=0', 'SYSTEMD_COLORS=0'];
const consoleLinesMax = 60;
const followMs = 100;
/** What a command that is late gets to end after SIGTERM, and then after SIGKILL. */
const termMs = 2_000;
const killMs = 5_000;
/** A guest that cannot run `true` in that time runs nothing any more. */
const answerMs = 60_000;
const powerOffMs = 10_000;
const consoleMs = 2_000;

/** The guest could not be booted, or died. The message holds the end of its console. */
export class GuestError extends Error {
  /** @override */
  name = 'GuestError';
}

/**
 * @typedef {object} BootOptions
 * @property {string} [workDir] a folder of the host that the guest may write, at the same path; by default a new one
 * @property {string} [memory] of the guest, as `mem=` takes it; its tmpfs take it from there
 * @property {import('./kernel-bench-kernels.js').Kernel} [kernel] by default the newest
 * @property {string} [nbd] parameters of the nbd module, or 'none' to leave it out
 * @property {string} [systemd] process 1 is systemd, once these commands of sh have set the guest's files up; the guest is
 *   usable when multi-user.target is reached
 * @property {string} [preload] a library for every program that is run (LD_PRELOAD)
 * @property {number} [limitMs] for the boot
 */

/**
 * @typedef {object} RunOptions
 * @property {number} [limitMs] then the command gets SIGTERM, SIGKILL 2 s later, and its status is 124
 * @property {string} [cwd] by default the work folder
 * @property {(stream: 'stdout' | 'stderr', bytes: Buffer) => void} [onOutput] told what the command writes, as it does
 */

/**
 * @typedef {object} CommandResult
 * @property {number} status of the shell: 128 + N after signal N, 124 after the time limit
 * @property {string} stdout
 * @property {string} stderr
 */

/**
 * @typedef {object} Order
 * @property {(status: number) => void} done
 * @property {(error: Error) => void} failed
 */

/**
 * Boots a guest; it is usable when the promise resolves.
 * @param {BootOptions} [options]
 * @returns {Promise<Guest>}
 */
export async function bootGuest(options = {}) {
  const { kernel = chosenKernel() } = options;
  const problem = missing(kernel);
  if (problem !== undefined) throw new GuestError(problem);
  const guest = new Guest(options, kernel);
  try {
    await guest.booted(options.limitMs ?? 60_000);
    return guest;
  } catch (error) {
    guest.destroy();
    throw error;
  }
}

/**
 * A booted guest. Its owner ends it by `powerOff` or `destroy`, or ends itself: then nothing of it is left, no process and
 * no folder (but a work folder that was given).
 */
export class Guest {
  /** All that the guest needs on the host; removed at its end. */
  folder;
  /** The folder that host and guest share, at the same path on both. */
  workDir;
  /** Resolves when the guest has ended, in whatever way; its folder stays until its owner is done with it. */
  ended;
  #control;
  #child;
  #guard;
  #line;
  /** @type {Map<string, Order>} */
  #orders = new Map();
  #nextId = 1;
  #console = '';
  #readyTimes = 0;
  #over = false;
  /** @type {(error?: Error) => void} */
  #onReady = () => {};
  #onExit = () => this.destroy();

  /**
   * @param {BootOptions} options
   * @param {import('./kernel-bench-kernels.js').Kernel} kernel
   */
  constructor(options, kernel) {
    this.folder = mkdtempSync(join(baseFolder(), 'kernel-bench-'));
    this.#control = join(this.folder, 'control');
    this.workDir = options.workDir ?? join(this.folder, 'work');
    const memory = join(this.folder, 'memory');
    for (const folder of [this.#control, this.workDir, memory]) mkdirSync(folder, { recursive: true });
    if (options.systemd !== undefined) writeFileSync(join(this.#control, 'systemd'), options.systemd);
    writeStarters(this.#control, this.workDir, kernel.modules, {
      nbd: options.nbd ?? 'max_part=16 nbds_max=8',
      preload: options.preload ?? '',
    });
    this.#child = spawn(
      'sh',
      [
        ...['-c', starter, 'sh', kernel.program, ...kernel.parameters],
        ...kernelArguments(this.folder, this.#control, options.memory ?? '2G'),
        ...(options.systemd === undefined ? [] : systemdArguments),
      ],
      {
        cwd: this.folder,
        // A group of its own: ^C must reach only us, and all of the guest's processes end by one signal.
        detached: true,
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', TMPDIR: memory },
        stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      },
    );
    this.#guard = spawn('sh', ['-c', guard, 'sh', String(this.#child.pid), this.folder], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#child.stdout?.on('data', (text) => this.#keepConsole(text));
    this.#child.stderr?.on('data', (text) => this.#keepConsole(text));
    this.#line = /** @type {import('node:net').Socket} */ (this.#child.stdio[3]);
    this.#readLines();
    // Only the owner's own end may not wait for ours.
    this.#guard.unref();
    this.ended = this.#end();
    process.on('exit', this.#onExit);
  }

  /** @param {number} limitMs */
  booted(limitMs) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(this.#death(`did not boot within ${limitMs / 1000} s`)), limitMs);
      this.#onReady = (error) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve(undefined);
      };
    });
  }

  /**
   * Runs a command line of sh. Rejects only if the guest dies.
   * @param {string} command
   * @param {RunOptions} [options]
   * @returns {Promise<CommandResult>}
   */
  async run(command, { limitMs = 60_000, cwd = this.workDir, onOutput } = {}) {
    if (this.#over) throw this.#death('is gone');
    const id = String(this.#nextId++);
    const folder = join(this.#control, id);
    mkdirSync(folder);
    writeFileSync(join(folder, 'command'), `cd ${quote(cwd)} || exit 126\n${command}\n`);
    const stdout = new GrowingFile(join(folder, 'stdout'), (bytes) => onOutput?.('stdout', bytes));
    const stderr = new GrowingFile(join(folder, 'stderr'), (bytes) => onOutput?.('stderr', bytes));
    const follower = setInterval(() => [stdout, stderr].map((file) => file.read()), followMs);
    try {
      const { status, reason } = await this.#order(id, limitMs);
      if (reason) appendFileSync(join(folder, 'stderr'), `bench: ${reason}\n`);
      return { status, stdout: stdout.end(), stderr: stderr.end() };
    } finally {
      clearInterval(follower);
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /**
   * @param {string} id
   * @param {number} limitMs
   * @returns {Promise<{ status: number, reason?: string }>}
   */
  async #order(id, limitMs) {
    const limit = `time limit of ${limitMs / 1000} s reached`;
    /** @type {NodeJS.Timeout[]} */
    const timers = [];
    let late = false;
    const after = (/** @type {number} */ ms, /** @type {() => void} */ action) => timers.push(setTimeout(action, ms));
    try {
      return await new Promise((done, failed) => {
        this.#orders.set(id, { done: (status) => done(late ? { status: 124, reason: limit } : { status }), failed });
        this.#line.write(`run ${id}\n`);
        after(limitMs, () => {
          late = true;
          this.#line.write(`signal ${id} TERM\n`);
        });
        after(limitMs + termMs, () => this.#line.write(`signal ${id} KILL\n`));
        after(limitMs + termMs + killMs, () => {
          done({ status: 124, reason: `${limit}, and SIGKILL does not end it` });
          void this.#killIfSilent();
        });
      });
    } finally {
      for (const timer of timers) clearTimeout(timer);
      this.#orders.delete(id);
    }
  }

  /** One command that cannot be ended may be stuck by itself. If it is the guest that is, no other has to wait for its limit, too. */
  async #killIfSilent() {
    const silent = setTimeout(() => {
      this.#console += `\nbench: killed: it does not run a command within ${answerMs / 1000} s\n`;
      this.#kill();
    }, answerMs);
    // Without an end of its own: only the timer above decides.
    await this.run('true', { cwd: '/', limitMs: 2 * answerMs }).catch(() => {});
    clearTimeout(silent);
  }

  /** Ends the guest in order; it is killed if that takes too long. */
  async powerOff() {
    this.#line.write('off\n');
    const timer = setTimeout(() => this.#kill(), powerOffMs);
    await this.ended;
    clearTimeout(timer);
    this.destroy();
  }

  /** Ends the guest at once and removes what it left. Synchronous, for exit handlers; may be called again. */
  destroy() {
    process.off('exit', this.#onExit);
    this.#kill();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
    this.#guard.kill('SIGKILL');
  }

  async #end() {
    await once(this.#child, 'exit');
    this.#over = true;
    this.#kill();
    // What it said last is still on its way.
    await once(this.#child, 'close', { signal: AbortSignal.timeout(consoleMs) }).catch(() => {});
    this.#onReady(this.#death('died while it booted'));
    for (const order of this.#orders.values()) order.failed(this.#death('died'));
    this.#line.destroy();
  }

  /** The last lines of the guest's console, up to 64 KiB. */
  consoleTail(lines = consoleLinesMax) {
    return this.#console.split('\n').slice(-lines).join('\n');
  }

  /** @param {Buffer} text */
  #keepConsole(text) {
    this.#console = (this.#console + text.toString('utf8')).slice(-64 * 1024);
  }

  #readLines() {
    let rest = '';
    this.#line.on('error', () => {});
    this.#line.on('data', (text) => {
      const lines = (rest + text.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#hear(line.trim());
    });
  }

  /** @param {string} line */
  #hear(line) {
    const [word, ...values] = line.split(' ');
    if (word === 'ready') {
      this.#readyTimes += 1;
      // User-Mode Linux starts itself again when the guest reboots: for a bench that is a death like any other.
      if (this.#readyTimes > 1) this.#kill();
      this.#onReady();
    }
    if (word === 'failed') this.#onReady(this.#death(`could not be set up: ${values.join(' ')}`));
    if (word === 'done') this.#orders.get(values[0] ?? '')?.done(Number(values[1]));
  }

  /** @param {string} what */
  #death(what) {
    return new GuestError(`the bench's guest ${what}; the end of its console:\n${this.consoleTail()}`);
  }

  #kill() {
    try {
      // The whole group: a guest's processes are processes of the host.
      if (this.#child.pid !== undefined) process.kill(-this.#child.pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
}
