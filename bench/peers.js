// Who is compared: how each server is started on an image, with what its users give it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Where a server is to listen.
 * @typedef {{ kind: 'unix', path: string } | { kind: 'tcp', port: number }} Address
 */

/**
 * How an image is opened, and whether the server is one that may not pass the limit of send buffers.
 * @typedef {{ format: 'raw' | 'qcow2', direct: boolean, underLimit?: boolean }} Opening
 */

/**
 * @typedef {object} Peer
 * @property {string} name
 * @property {string} group what a target names: `qemu-nbd` for both of its modes
 * @property {(address: Address, image: string, folder: string, opening: Opening) => string[]} command program and arguments; stays in the
 *   foreground (but see daemonPidFile) and serves any number of connections, one after another and at the same time, until
 *   SIGTERM
 * @property {(one: import('./cases.js').Case) => boolean} [serves] if not said, all but qcow2 images and what goes past the page cache
 * @property {string} [exportName] of one that has no export without a name
 * @property {string} [daemonPidFile] of one that in the foreground would serve one connection only: the file, in the
 *   folder, in which the process that stays writes its id
 */

/**
 * @param {string} program path of a built tsnbd.js
 * @param {string} [name]
 * @returns {Peer}
 */
export function tsnbd(program, name = 'tsnbd') {
  return {
    name,
    group: name,
    serves: () => true,
    command: (address, image, _, { format, direct }) => [
      ...[process.execPath, program, '-t', '-e', '0', '-f', format, ...(direct ? ['--cache=none'] : [])],
      ...(address.kind === 'unix' ? ['-k', address.path] : ['-b', '127.0.0.1', '-p', String(address.port)]),
      image,
    ],
  };
}

/** @type {Peer} */
const nbdkit = {
  name: 'nbdkit',
  group: 'nbdkit',
  command: (address, image, folder) => [
    ...['nbdkit', '-f', '-P', join(folder, 'nbdkit.pid')],
    ...(address.kind === 'unix' ? ['-U', address.path] : ['-i', '127.0.0.1', '-p', String(address.port)]),
    ...['file', image],
  ],
};

/** @type {Peer} */
const nbdServer = {
  name: 'nbd-server',
  group: 'nbd-server',
  command: (address, image, folder) => {
    const path = join(folder, 'nbd-server.conf');
    const listen =
      address.kind === 'unix' ? `unixsock = ${address.path}` : `listenaddr = 127.0.0.1\nport = ${address.port}`;
    writeFileSync(
      path,
      `[generic]\n${listen}\n[image]\nexportname = ${image}\nflush = true\nfua = true\ntrim = true\n`,
    );
    return ['nbd-server', '-C', path, '-p', join(folder, 'nbd-server.daemon')];
  },
  exportName: 'image',
  daemonPidFile: 'nbd-server.daemon',
};

/** All but ours. @type {readonly Peer[]} */
export const others = [nbdkit, qemuNbd('threads'), qemuNbd('io_uring'), nbdServer];

/**
 * The server of bench/bound, in each of its ways. It reads one request after the other, so it says nothing about data that come from
 * the disk, and it allocates no clusters.
 * @param {string} program path of what bench/bound/server.c became
 * @returns {Peer[]}
 */
export function bounds(program) {
  const ways = { '': [], ' awake': ['-a'], ' by reference': ['-s', '-w'] };
  return Object.entries(ways).map(([way, flags]) => ({
    name: `bound${way}`,
    group: 'bound',
    serves: (one) => one.kind !== 'fio' || (one.cache === 'warm' && (one.qcow2 ?? 'full') === 'full'),
    command: (address, image, _, { format }) => [
      ...[program, ...flags, ...(format === 'qcow2' ? ['-q'] : [])],
      ...[address.kind === 'unix' ? `unix:${address.path}` : `tcp:${address.port}`, image],
    ],
  }));
}

/**
 * The disk itself, read by the load with no server between: what the bound of cold cases is.
 * @typedef {object} Disk
 * @property {string} name
 * @property {string} group
 * @property {(one: import('./cases.js').Case) => boolean} serves
 * @property {readonly string[]} engine fio's options, but for the file's name
 */

/** Through the page cache, where what was read once is warm as it is for servers, and past it. @type {readonly Disk[]} */
export const disks = [
  ['disk', '0'],
  ['disk, direct', '1'],
].map(([way, direct]) => ({
  name: `bound: the ${way}`,
  group: 'bound',
  serves: (one) =>
    one.kind === 'fio' &&
    ['cold', 'once'].includes(one.cache) &&
    one.qcow2 === undefined &&
    one.access.endsWith('read'),
  engine: ['--ioengine=io_uring', `--direct=${direct}`, '--invalidate=0', '--readonly'],
}));

/**
 * @param {'threads' | 'io_uring'} aio `threads` is its default
 * @returns {Peer}
 */
function qemuNbd(aio) {
  return {
    name: aio === 'threads' ? 'qemu-nbd' : `qemu-nbd ${aio}`,
    group: 'qemu-nbd',
    serves: () => true,
    command: (address, image, _, { format, direct }) => [
      ...['qemu-nbd', '-t', '-e', '0', '-f', format, `--cache=${direct ? 'none' : 'writeback'}`, `--aio=${aio}`],
      ...(address.kind === 'unix' ? ['-k', address.path] : ['-b', '127.0.0.1', '-p', String(address.port)]),
      image,
    ],
  };
}
