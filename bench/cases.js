// What is measured, as data: every case with its name, and the targets of those that have one.

/**
 * @typedef {'unix' | 'tcp' | 'kernel'} Transport
 * @typedef {'randread' | 'randwrite' | 'read' | 'write'} Access
 */

/**
 * What our figure divided by a peer's must be: at least this for a speed, at most this for a cost. `qemu-nbd` is the
 * better of its two modes, or its default one where `qemu-nbd io_uring` says a target for the other.
 * @typedef {{ 'nbdkit'?: number, 'qemu-nbd'?: number, 'qemu-nbd io_uring'?: number }} Target
 */

/**
 * @typedef {object} FioCase
 * @property {'fio'} kind
 * @property {string} name unique; `--only` selects by it
 * @property {Transport} transport
 * @property {Access} access
 * @property {number} blockBytes
 * @property {number} depth of each connection
 * @property {number} connections
 * @property {'warm' | 'cold' | 'once' | 'direct'} cache the image is in the page cache; was dropped from it before the run; was dropped,
 *   and each block is read at most once; was dropped, and the server goes past it (O_DIRECT)
 * @property {'full' | 'new' | 'backed'} [qcow2] the image is a qcow2 of clusters of 64 KiB: all of it allocated; nothing, and made
 *   anew for each figure; nothing, on a backing file that is full. Else it is raw
 * @property {true} [underLimit] net.core.wmem_max is at the kernel's default, and no server may pass it
 * @property {number} [writesASync] fio syncs after so many writes
 * @property {Target} [speed]
 * @property {Target} [cpu]
 */

/**
 * @typedef {object} CopyCase
 * @property {'nbdcopy'} kind
 * @property {string} name
 * @property {'unix' | 'tcp'} transport
 * @property {'read' | 'write'} access from the server, or to it
 * @property {Target} [speed]
 * @property {Target} [cpu]
 */

/** @typedef {FioCase | CopyCase} Case */

const KIB = 1024;
const WARM_READ_DEEP = { nbdkit: 1.6, 'qemu-nbd': 2 };
const WARM_WRITE_DEEP = { nbdkit: 1.25, 'qemu-nbd': 1.5 };

/** The cases with a target, in the order of the table of targets. @type {readonly Case[]} */
export const targetCases = [
  fio('unix randread 4k d16', { speed: WARM_READ_DEEP }),
  fio('unix randread 4k d64', { speed: WARM_READ_DEEP }),
  fio('unix randwrite 4k d16', { speed: WARM_WRITE_DEEP }),
  fio('unix randwrite 4k d64', { speed: WARM_WRITE_DEEP }),
  fio('unix randread 4k d1', { speed: { nbdkit: 1.4, 'qemu-nbd': 1.6 } }),
  fio('unix randwrite 4k d1', { speed: { nbdkit: 1.2, 'qemu-nbd': 1.5 } }),
  fio('unix randread 256k d16', { speed: { nbdkit: 1.5, 'qemu-nbd': 3 } }),
  fio('unix randwrite 256k d16', { speed: { nbdkit: 1.1, 'qemu-nbd': 2 } }),
  copy('unix nbdcopy read', { speed: { nbdkit: 1.1, 'qemu-nbd': 2 } }),
  fio('unix randread 4k d1 c4', { speed: { nbdkit: 1.8, 'qemu-nbd': 1.4 } }),
  fio('unix randread 4k d16 c4', { speed: { nbdkit: 2, 'qemu-nbd': 3 }, cpu: { nbdkit: 0.5, 'qemu-nbd': 0.4 } }),
  fio('unix randread 4k d32 cold', { speed: { nbdkit: 1, 'qemu-nbd': 1 } }),
  fio('unix randread 64k d16 cold', { speed: { nbdkit: 1.2, 'qemu-nbd': 1.2 } }),
  fio('unix randread 256k d16 cold', { speed: { nbdkit: 1.5, 'qemu-nbd': 3 } }),
  fio('tcp randread 4k d1', { speed: { nbdkit: 1.3, 'qemu-nbd': 1.5 } }),
  fio('tcp randread 4k d32', { speed: { nbdkit: 1.2, 'qemu-nbd': 1.2 } }),
  fio('tcp randwrite 256k d16', { speed: { nbdkit: 1.1, 'qemu-nbd': 2 } }),
  fio('kernel randread 4k d32', { speed: { nbdkit: 2, 'qemu-nbd': 4 } }),
  fio('kernel randwrite 4k d32', { speed: { nbdkit: 1.8, 'qemu-nbd': 4 } }),
  fio('kernel randread 4k d1', { speed: { nbdkit: 1.7, 'qemu-nbd': 4 } }),
  fio('kernel randread 256k d8', { speed: { nbdkit: 1.5, 'qemu-nbd': 4 } }),
  qcow2('qcow2 randread 4k d32', 3.5, 2.5),
  qcow2('qcow2 randwrite 4k d32', 1.8, 3),
  qcow2('qcow2 randwrite 4k d32 new', 2.5, 3),
  qcow2('qcow2 randread 4k d1', 1.5, 1.5),
  qcow2('qcow2 randread 256k d8', 3, 2.5),
  qcow2('qcow2 randwrite 4k d32 sync256', 1, 1),
  qcow2('qcow2 randread 4k d32 cold', 1, 1),
];

/** Every case: those with a target, then the rest of the cross product. @type {readonly Case[]} */
export const allCases = [...targetCases, ...withoutKnown([...matrix(), ...besides()])];

/** Everything against everything: transport, access, size, depth, connections, cache. */
function matrix() {
  const made = [];
  for (const cache of ['', ' cold'])
    for (const transport of ['unix', 'tcp'])
      for (const access of ['randread', 'randwrite', 'read', 'write'])
        for (const size of ['4k', '64k', '256k'])
          for (const depth of ['d1', 'd16', 'd64'])
            for (const connections of ['', ' c4'])
              made.push(fio(`${transport} ${access} ${size} ${depth}${connections}${cache}`));
  return made;
}

/** What the cross product has no place for. @returns {Case[]} */
function besides() {
  return [
    copy('unix nbdcopy write'),
    copy('tcp nbdcopy read'),
    copy('tcp nbdcopy write'),
    qcow2('qcow2 randread 4k d32 backed'),
    qcow2('qcow2 randread 256k d8 backed'),
    fio('unix randread 4k d32 once'),
    fio('unix randread 64k d16 once'),
    fio('unix randread 256k d16 once'),
    ...['4k d1', '4k d32', '64k d32', '256k d16'].map((what) => fio(`unix randread ${what} direct`)),
    ...['4k d1', '4k d32', '64k d32', '256k d16'].map((what) => fio(`unix randwrite ${what} direct`)),
    ...['64k d16', '256k d16'].map((what) => fio(`unix randread ${what} wmem`)),
    fio('kernel randwrite 4k d1'),
    fio('kernel randwrite 256k d8'),
  ];
}

/** @param {readonly Case[]} cases */
function withoutKnown(cases) {
  const known = new Set(targetCases.map(({ name }) => name));
  return cases.filter(({ name }) => !known.has(name));
}

/**
 * The case that a name stands for: `TRANSPORT ACCESS SIZEk dDEPTH [cCONNECTIONS] [cold|once|direct|wmem]`.
 * @param {string} name
 * @param {{ speed?: Target, cpu?: Target }} [targets]
 * @returns {FioCase}
 */
export function fio(name, targets = {}) {
  const match = /^(unix|tcp|kernel) (rand)?(read|write) (\d+)k d(\d+)(?: c(\d+))?(?: (cold|once|direct|wmem))?$/.exec(
    name,
  );
  if (match === null) throw new Error(`'${name}' is not the name of a case`);
  const [, transport, random = '', direction, kibibytes, depth, connections = '1', cache = 'warm'] = match;
  return {
    kind: 'fio',
    name,
    transport: /** @type {Transport} */ (transport),
    access: /** @type {Access} */ (`${random}${direction}`),
    blockBytes: Number(kibibytes) * KIB,
    depth: Number(depth),
    connections: Number(connections),
    cache: /** @type {FioCase['cache']} */ (cache === 'wmem' ? 'warm' : cache),
    ...(cache === 'wmem' ? { underLimit: /** @type {const} */ (true) } : {}),
    ...targets,
  };
}

/**
 * Like `fio`, on a qcow2 image over a unix socket: `qcow2 ACCESS SIZEk dDEPTH [sync256] [cold|new|backed]`. With targets for the
 * two modes of qemu-nbd, or with none.
 * @param {string} name
 * @param {number} [threads]
 * @param {number} [ioUring]
 * @returns {FioCase}
 */
function qcow2(name, threads, ioUring) {
  const match = /^qcow2 ([a-z]+ \d+k d\d+)( sync256)?(?: (cold|new|backed))?$/.exec(name);
  if (match === null) throw new Error(`'${name}' is not the name of a case`);
  const [, what, synced, state] = match;
  const targets =
    threads === undefined || ioUring === undefined
      ? {}
      : { speed: { 'qemu-nbd': threads, 'qemu-nbd io_uring': ioUring } };
  return {
    ...fio(`unix ${what}${state === 'cold' ? ' cold' : ''}`, targets),
    name,
    qcow2: state === 'new' || state === 'backed' ? state : 'full',
    ...(synced === undefined ? {} : { writesASync: 256 }),
  };
}

/**
 * @param {string} name `TRANSPORT nbdcopy read|write`
 * @param {{ speed?: Target, cpu?: Target }} [targets]
 * @returns {CopyCase}
 */
function copy(name, targets = {}) {
  const match = /^(unix|tcp) nbdcopy (read|write)$/.exec(name);
  if (match === null) throw new Error(`'${name}' is not the name of a case`);
  const [, transport, access] = match;
  return {
    kind: 'nbdcopy',
    name,
    transport: /** @type {CopyCase['transport']} */ (transport),
    access: /** @type {CopyCase['access']} */ (access),
    ...targets,
  };
}
