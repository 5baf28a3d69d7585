// Boots the bench's kernel (User-Mode Linux with nbd) and runs commands in it: the one implementation behind
// scripts/kernel-bench and the kernel tests. The guest's side is kernel-bench-init and kernel-bench-agent.
import { spawn } from 'node:child_process';
import {
  accessSync,
  appendFileSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const checkout = dirname(dirname(fileURLToPath(import.meta.url)));
const program = '/usr/bin/linux.uml';
const withoutCoreFile = 'ulimit -c 0; exec "$@"';
/** Waits on the host for our end, whatever it is, and cleans up if we could not. */
const guard = 'read -r _; kill -s KILL -- "-$1"; sleep 1; rm -rf "$2"';

/** Below this much free space /dev/shm is not used: the guest's memory and the work folder must fit into it. */
const memoryFolderBytesMin = 4 * 2 ** 30;
const consoleLinesMax = 60;
const followMs = 100;
/** What a command that is late gets to end after SIGTERM, and then after SIGKILL. */
const termMs = 2_000;
const killMs = 5_000;
const powerOffMs = 10_000;

/** The guest could not be booted, or died. The message holds the end of its console. */
export class GuestError extends Error {
  /** @override */
  name = 'GuestError';
}

/**
 * @typedef {object} BootOptions
 * @property {string} [workDir] a folder of the host that the guest may write, at the same path; by default a new one
 * @property {string} [memory] of the guest, as `mem=` takes it; its tmpfs take it from there
 * @property {string} [nbd] parameters of the nbd module, or 'none' to leave it out
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
  const problem = missing();
  if (problem !== undefined) throw new GuestError(problem);
  const guest = new Guest(options);
  try {
    await guest.booted(options.limitMs ?? 60_000);
    return guest;
  } catch (error) {
    guest.destroy();
    throw error;
  }
}

/** What keeps this machine from booting the bench, as a sentence. */
function missing() {
  if (!existsSync(program)) return `${program} is missing: run scripts/setup (Debian package user-mode-linux)`;
  if (!existsSync('/usr/bin/busybox') && !existsSync('/bin/busybox'))
    return 'busybox is missing: run scripts/setup (Debian package busybox-static)';
  return undefined;
}

/** A booted guest. After its end nothing of it is left: no process, no folder (but a work folder that was given). */
export class Guest {
  /** All that the guest needs on the host; removed at its end. */
  folder;
  /** The folder that host and guest share, at the same path on both. */
  workDir;
  /** Resolves when the guest has ended, in whatever way. */
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

  /** @param {BootOptions} options */
  constructor(options) {
    this.folder = mkdtempSync(join(baseFolder(), 'kernel-bench-'));
    this.#control = join(this.folder, 'control');
    this.workDir = options.workDir ?? join(this.folder, 'work');
    for (const folder of [this.#control, this.workDir]) mkdirSync(folder, { recursive: true });
    this.#writeStarters(options.nbd ?? 'max_part=16 nbds_max=8');
    this.#child = spawn('sh', ['-c', withoutCoreFile, 'sh', program, ...this.#kernelArguments(options)], {
      cwd: this.folder,
      // A group of its own: ^C must reach only us, and all of the guest's processes end by one signal.
      detached: true,
      env: { PATH: '/usr/bin:/bin', TMPDIR: this.folder },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    this.#guard = spawn('sh', ['-c', guard, 'sh', String(this.#child.pid), this.folder], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#child.stdout?.on('data', (text) => this.#keepConsole(text));
    this.#child.stderr?.on('data', (text) => this.#keepConsole(text));
    this.#line = /** @type {import('node:net').Socket} */ (this.#child.stdio[3]);
    this.#readLines();
    this.ended = new Promise((resolve) => this.#child.once('exit', resolve)).then(() => this.destroy());
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
      if (!this.#over) rmSync(folder, { recursive: true, force: true });
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
        after(limitMs + termMs + killMs, () => done({ status: 124, reason: `${limit}, and SIGKILL does not end it` }));
      });
    } finally {
      for (const timer of timers) clearTimeout(timer);
      this.#orders.delete(id);
    }
  }

  /** Ends the guest in order; it is killed if that takes too long. */
  async powerOff() {
    this.#line.write('off\n');
    const timer = setTimeout(() => this.#kill(), powerOffMs);
    await this.ended;
    clearTimeout(timer);
  }

  /** Ends the guest at once and removes what it left. Synchronous, for exit handlers; may be called again. */
  destroy() {
    if (this.#over) return;
    this.#over = true;
    process.off('exit', this.#onExit);
    this.#kill();
    this.#onReady(this.#death('died while it booted'));
    for (const order of this.#orders.values()) order.failed(this.#death('died'));
    this.#line.destroy();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 });
    this.#guard.kill('SIGKILL');
  }

  /** The last lines of the guest's console. */
  consoleTail() {
    return this.#console.split('\n').slice(-consoleLinesMax).join('\n');
  }

  /** @param {string} nbd */
  #writeStarters(nbd) {
    const names = {
      BENCH_CHECKOUT: checkout,
      BENCH_NODE: dirname(dirname(process.execPath)),
      BENCH_WORK: this.workDir,
      BENCH_CONTROL: this.#control,
      BENCH_NBD: nbd,
      PATH: `${dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
      HOME: '/root',
      LANG: 'C.UTF-8',
    };
    const exports = Object.entries(names).map(([name, value]) => `export ${name}=${quote(value)}\n`);
    for (const part of ['init', 'agent']) {
      const script = quote(join(checkout, 'scripts', `kernel-bench-${part}`));
      writeFileSync(join(this.#control, part), `#!/bin/sh\n${exports.join('')}exec sh ${script}\n`, { mode: 0o755 });
    }
  }

  /** @param {BootOptions} options */
  #kernelArguments({ memory = '2G' }) {
    return [
      `mem=${memory}`,
      'umid=guest',
      `uml_dir=${this.folder}/`,
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
      `init=${this.#control}/init`,
    ];
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
      if (this.#readyTimes > 1) this.destroy();
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

/** A file that the guest writes, read as it grows. */
class GrowingFile {
  /** @type {Buffer[]} */
  #pieces = [];
  #fd;
  #onBytes;

  /**
   * @param {string} path
   * @param {(bytes: Buffer) => void} onBytes
   */
  constructor(path, onBytes) {
    this.#fd = openSync(path, 'w+');
    this.#onBytes = onBytes;
  }

  read() {
    const { size } = fstatSync(this.#fd);
    const known = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (size <= known) return;
    const bytes = Buffer.alloc(size - known);
    const length = readSync(this.#fd, bytes, 0, bytes.length, known);
    this.#pieces.push(bytes.subarray(0, length));
    this.#onBytes(bytes.subarray(0, length));
  }

  /** Reads what is left and gives the whole text. */
  end() {
    this.read();
    closeSync(this.#fd);
    return Buffer.concat(this.#pieces).toString('utf8');
  }
}

/** Where the guest's memory file and the work folder go: RAM if there is enough of it. */
function baseFolder() {
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
 * A word of sh that stands for exactly this text.
 * @param {string} text
 */
export function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
