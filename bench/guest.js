// The bench kernel: a device attached by each program in turn, and what is measured on it.
import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { bootGuest } from '../scripts/kernel-bench-guest.js';
import { quote } from '../scripts/kernel-bench-start.js';
import { fioArguments, fioLoad } from './load.js';

/**
 * @typedef {import('../scripts/kernel-bench-guest.js').Guest} Guest
 * @typedef {import('./cases.js').FioCase} FioCase
 * @typedef {import('./measure.js').Sample} Sample
 */

const DEVICE = '/dev/nbd0';
const BOOT_LIMIT_MS = 60_000;
const COMMAND_LIMIT_MS = 120_000;
const IS_FREE = 'test ! -e /sys/block/nbd0/pid && test "$(cat /sys/block/nbd0/size)" = 0';
const IS_USABLE = `dd if=${DEVICE} of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null`;

/**
 * How a program attaches an image to the device: command lines of sh.
 * @typedef {object} Attacher
 * @property {string} name
 * @property {string} group what a target names
 * @property {string} [prepare] before, and not part of the time it takes: a server
 * @property {string} attach
 * @property {string} detach
 * @property {string} [finish]
 */

/**
 * @param {string} program path of tsnbd.js in the guest
 * @param {string} image
 * @param {string} [name]
 * @returns {Attacher}
 */
export function byTsnbd(program, image, name = 'tsnbd') {
  const tsnbd = `node ${quote(program)}`;
  return {
    name,
    group: name,
    attach: `${tsnbd} -c ${DEVICE} -f raw ${quote(image)}`,
    detach: `${tsnbd} -d ${DEVICE}`,
  };
}

/**
 * @param {'threads' | 'io_uring'} aio
 * @param {string} image
 * @returns {Attacher}
 */
export function byQemuNbd(aio, image) {
  return {
    name: aio === 'threads' ? 'qemu-nbd' : `qemu-nbd ${aio}`,
    group: 'qemu-nbd',
    attach: `qemu-nbd -f raw --cache=writeback --aio=${aio} -c ${DEVICE} ${quote(image)} >/dev/null`,
    detach: `qemu-nbd -d ${DEVICE} >/dev/null`,
  };
}

/**
 * nbdkit serves, and another program attaches: nbd-client, or ours.
 * @param {string} image
 * @param {string} [client]
 * @param {string} [name]
 * @returns {Attacher}
 */
export function byNbdkit(image, client = 'nbd-client', name = 'nbdkit') {
  const [socket, pidFile] = ['/run/bench.sock', '/run/bench.pid'];
  return {
    name,
    group: name,
    prepare: `nbdkit -P ${pidFile} -U ${socket} file ${quote(image)} && while ! test -e ${pidFile}; do sleep 0.01; done`,
    attach: `${client} -unix ${socket} ${DEVICE} >/dev/null`,
    detach: `${client} -d ${DEVICE} >/dev/null`,
    finish: `kill "$(cat ${pidFile})"; while test -e ${socket} && pgrep -x nbdkit >/dev/null; do sleep 0.01; done; rm -f ${pidFile} ${socket}`,
  };
}

/** A booted guest, as the bench uses it. */
export class DeviceBench {
  /** @param {Guest} guest */
  constructor(guest) {
    this.guest = guest;
  }

  static async boot() {
    return new DeviceBench(await bootGuest({ limitMs: BOOT_LIMIT_MS }));
  }

  /**
   * Makes a built checkout visible in the guest, wherever it lies on the host.
   * @param {string} checkout
   * @param {string} packages its node_modules
   * @param {string} name
   * @returns {string} the folder of its programs
   */
  bring(checkout, packages, name) {
    const folder = join(this.guest.workDir, name);
    mkdirSync(folder);
    for (const part of ['dist', 'package.json']) cpSync(join(checkout, part), join(folder, part), { recursive: true });
    symlinkSync(packages, join(folder, 'node_modules'));
    return join(folder, 'dist');
  }

  /**
   * @param {string} command of sh
   * @returns {Promise<string>} its standard output
   */
  async ok(command) {
    const { status, stdout, stderr } = await this.guest.run(command, { limitMs: COMMAND_LIMIT_MS });
    if (status !== 0) throw new Error(`in the guest, status ${status} of: ${command}\n${stdout}${stderr}`);
    return stdout.trim();
  }

  /**
   * An image without holes in the guest's memory.
   * @param {string} path
   * @param {number} sizeBytes
   */
  async makeImage(path, sizeBytes) {
    await this.ok(`head -c ${sizeBytes} /dev/urandom >${quote(path)}`);
  }

  /**
   * Attaches, does something with the device, detaches.
   * @template T
   * @param {Attacher} attacher
   * @param {() => Promise<T>} use
   */
  async attached(attacher, use) {
    await this.ok(`${attacher.prepare ?? ':'}\n${attacher.attach} && ${until(IS_USABLE)}`);
    try {
      return await use();
    } finally {
      await this.ok(`${attacher.detach}; ${until(IS_FREE)}; ${attacher.finish ?? ':'}`);
    }
  }

  /**
   * @param {Attacher} attacher
   * @param {FioCase} one
   * @param {{ seconds: number, sizeBytes: number }} options
   * @returns {Promise<Sample>}
   */
  async measure(attacher, one, { seconds, sizeBytes }) {
    const args = ['--ioengine=libaio', '--direct=1', `--filename=${DEVICE}`, ...fioArguments(one, seconds, sizeBytes)];
    return this.attached(attacher, async () => fioLoad(await this.ok(`fio ${args.join(' ')}`)));
  }

  /**
   * Reads the whole device and writes another image to it; throws on the first wrong byte.
   * @param {Attacher} attacher
   * @param {string} image that it attaches
   * @param {string} pattern another of that size
   */
  async checkBytes(attacher, image, pattern) {
    const sum = (/** @type {string} */ path) => this.ok(`sha256sum <${quote(path)}`);
    const [expected, given] = [await sum(image), await sum(pattern)];
    await this.attached(attacher, async () => {
      if ((await sum(DEVICE)) !== expected)
        throw new Error(`${attacher.name}: the device gave other bytes than the image has`);
      await this.ok(`dd if=${quote(pattern)} of=${DEVICE} bs=1M oflag=direct conv=fsync status=none`);
    });
    if ((await sum(image)) !== given)
      throw new Error(`${attacher.name}: the image got other bytes than the device was given`);
  }

  /**
   * Milliseconds from the command to a device that can be read.
   * @param {Attacher} attacher
   */
  async timeToUsable(attacher) {
    const timed = `${attacher.prepare ?? ':'}\n${timing(`${attacher.attach} && ${until(IS_USABLE)}`)}`;
    const said = await this.ok(`${timed}\n${attacher.detach} >&2; ${until(IS_FREE)}; ${attacher.finish ?? ':'}`);
    return Number(said) / 1_000_000;
  }

  /** Milliseconds of a command. @param {string} command */
  async time(command) {
    return Number(await this.ok(timing(command))) / 1_000_000;
  }

  async powerOff() {
    await this.guest.powerOff();
  }
}

/** Waits for a condition, up to 20 s. @param {string} condition a command line of sh */
function until(condition) {
  return `{ for try in $(seq 1000); do if ${condition}; then break; fi; sleep 0.02; done; ${condition}; }`;
}

/** Prints the nanoseconds that a command takes. @param {string} command of sh */
function timing(command) {
  return `start=$(date +%s%N)\n${command} || exit 1\necho $(($(date +%s%N) - start))`;
}
