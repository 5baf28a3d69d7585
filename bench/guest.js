// The bench kernel: how each program attaches an image to a device there, and what is done with it.
import { cpSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { bootGuest } from '../scripts/kernel-bench-guest.js';
import { quote } from '../scripts/kernel-bench-start.js';
import { makeImage, sha256 } from './image.js';
import { fioArguments, fioLoad } from './load.js';

/**
 * @typedef {import('../scripts/kernel-bench-guest.js').Guest} Guest
 * @typedef {import('./cases.js').FioCase} FioCase
 * @typedef {import('./measure.js').Sample} Sample
 */

const BOOT_LIMIT_MS = 60_000;
const COMMAND_LIMIT_MS = 120_000;

/**
 * What is attached where.
 * @typedef {{ device: string, image: string }} Place
 */

/**
 * How a program attaches an image to a device: command lines of sh.
 * @typedef {object} Attacher
 * @property {string} name
 * @property {string} group what a target names
 * @property {(place: Place) => string} [prepare] before, and not part of the time it takes: a server
 * @property {(place: Place) => string} attach
 * @property {(place: Place) => string} detach
 * @property {(place: Place) => string} [finish]
 * @property {true} [attachesNone] nothing becomes usable, and nothing is to be detached
 */

/**
 * @param {string} program path of tsnbd.js in the guest
 * @param {string} [name]
 * @returns {Attacher}
 */
export function byTsnbd(program, name = 'tsnbd') {
  const tsnbd = `node ${quote(program)}`;
  return {
    name,
    group: name,
    attach: ({ device, image }) => `${tsnbd} -c ${device} -f raw ${quote(image)}`,
    detach: ({ device }) => `${tsnbd} -d ${device}`,
  };
}

/**
 * @param {'threads' | 'io_uring'} aio
 * @returns {Attacher}
 */
export function byQemuNbd(aio) {
  const how = `-f raw --cache=writeback --aio=${aio}`;
  return {
    name: aio === 'threads' ? 'qemu-nbd' : `qemu-nbd ${aio}`,
    group: 'qemu-nbd',
    attach: ({ device, image }) => `qemu-nbd ${how} -c ${device} ${quote(image)} >/dev/null`,
    detach: ({ device }) => `qemu-nbd -d ${device} >/dev/null`,
  };
}

/**
 * nbdkit serves, and another program attaches: nbd-client, or ours.
 * @param {string} [client]
 * @param {string} [name]
 * @param {string} [options] of the attach
 * @returns {Attacher}
 */
export function byNbdkit(client = 'nbd-client', name = 'nbdkit', options = '') {
  return {
    name,
    group: name,
    prepare: (place) =>
      `nbdkit -P ${run(place)}.pid -U ${run(place)}.sock file ${quote(place.image)} && ${until(`test -e ${run(place)}.pid`)}`,
    attach: (place) => `${client} -unix ${run(place)}.sock ${place.device} ${options} >/dev/null`,
    detach: ({ device }) => `${client} -d ${device} >/dev/null`,
    finish: (place) =>
      `server=$(cat ${run(place)}.pid); kill $server; ${until('! kill -0 $server 2>/dev/null')}; rm -f ${run(place)}.*`,
  };
}

/**
 * The same with the server of bench/bound, and nbd-client.
 * @param {string} program its path in the guest
 * @returns {Attacher}
 */
export function byBound(program) {
  return {
    ...byNbdkit('nbd-client', 'bound'),
    prepare: (place) =>
      `${quote(program)} unix:${run(place)}.sock ${quote(place.image)} </dev/null >/dev/null 2>&1 &
      echo $! >${run(place)}.pid; ${until(`test -S ${run(place)}.sock`)}`,
  };
}

/**
 * What each kind of attach cannot do without, by bench/bound.
 * @param {string} program its path in the guest
 * @returns {Attacher[]}
 */
export function byLeast(program) {
  const ways = { image: 'tsnbd', leaving: 'tsnbd-client', alone: 'tsnbd-client --no-persist' };
  return Object.entries(ways).map(([way, name]) => ({
    ...byNbdkit('', `the least for ${name}, no device`),
    attach: (place) => `node ${quote(program)} ${way} ${run(place)}.sock`,
    attachesNone: true,
  }));
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
   * Puts an image into the guest's memory. It is made on the host, where that takes less long, and copied.
   * @param {string} path
   * @param {number} sizeBytes
   * @returns {Promise<string>} its sha256
   */
  async makeImage(path, sizeBytes) {
    const made = join(this.guest.workDir, 'image.raw');
    makeImage(made, sizeBytes);
    await this.ok(`cp ${quote(made)} ${quote(path)}`);
    const sum = await sha256(made);
    rmSync(made);
    return sum;
  }

  /**
   * @param {Attacher} attacher
   * @param {Place} place
   */
  async attach(attacher, place) {
    await this.ok(`${attacher.prepare?.(place) ?? ':'}\n${attacher.attach(place)} && ${until(isUsable(place))}`);
  }

  /**
   * @param {Attacher} attacher
   * @param {Place} place
   */
  async detach(attacher, place) {
    await this.ok(`${attacher.detach(place)}; ${until(isFree(place))}; ${attacher.finish?.(place) ?? ':'}`);
  }

  /**
   * @param {FioCase} one
   * @param {{ device: string, seconds: number, sizeBytes: number }} options
   * @returns {Promise<Sample>}
   */
  async measure(one, { device, seconds, sizeBytes }) {
    const args = ['--ioengine=libaio', '--direct=1', `--filename=${device}`, ...fioArguments(one, seconds, sizeBytes)];
    return fioLoad(await this.ok(`fio ${args.join(' ')}`));
  }

  /**
   * Reads a whole device and writes another image to it; throws on a wrong byte.
   * @param {Attacher} attacher
   * @param {Place} place
   * @param {number} sizeBytes
   */
  async checkBytes(attacher, place, sizeBytes) {
    const pattern = `${place.image}.pattern`;
    const sum = async (/** @type {string} */ path) => (await this.ok(`sha256sum <${quote(path)}`)).split(' ')[0];
    const expected = await this.makeImage(place.image, sizeBytes);
    const written = await this.makeImage(pattern, sizeBytes);
    await this.attach(attacher, place);
    const given = await sum(place.device);
    await this.ok(`dd if=${quote(pattern)} of=${place.device} bs=1M oflag=direct conv=fsync status=none`);
    await this.detach(attacher, place);
    if (given !== expected) throw new Error(`${attacher.name}: the device gave other bytes than the image has`);
    if ((await sum(place.image)) !== written)
      throw new Error(`${attacher.name}: the image got other bytes than the device was given`);
    await this.ok(`rm ${quote(place.image)} ${quote(pattern)}`);
  }

  /**
   * Milliseconds from the command to a device that can be read, or of the command alone where there is none.
   * @param {Attacher} attacher
   * @param {Place} place
   */
  async timeToUsable(attacher, place) {
    const attach = attacher.attach(place);
    const timed = timing(attacher.attachesNone ? attach : `${attach} && ${until(isUsable(place))}`);
    const said = await this.ok(`${attacher.prepare?.(place) ?? ':'}\n${timed}`);
    if (attacher.attachesNone) await this.ok(attacher.finish?.(place) ?? ':');
    else await this.detach(attacher, place);
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

/** @param {Place} place */
function isUsable({ device }) {
  return `dd if=${device} of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null`;
}

/** @param {Place} place */
function isFree({ device }) {
  const folder = `/sys/block/${basename(device)}`;
  return `test ! -e ${folder}/pid && test "$(cat ${folder}/size)" = 0`;
}

/** What the socket of a device's server and the file with its process id begin with. @param {Place} place */
function run({ device }) {
  return `/run/bench-${basename(device)}`;
}

/** Waits for a condition, up to 20 s. @param {string} condition a command line of sh */
function until(condition) {
  return `{ for try in $(seq 1000); do if ${condition}; then break; fi; sleep 0.02; done; ${condition}; }`;
}

/** Prints the nanoseconds that a command takes. @param {string} command of sh */
function timing(command) {
  return `start=$(date +%s%N)\n${command} || exit 1\necho $(($(date +%s%N) - start))`;
}
