import { resolve } from 'node:path';
import type { AttachRequest, PartitionChoice } from '../attach/attach-request.js';
import { MountError } from '../mount/errors.js';
import type { FsckChoice } from '../mount/fsck.js';
import { type ListedOption, listedOptions } from '../mount/option-list.js';
import { isNbdUri } from '../transport/uri.js';
import { about, UsageError } from './errors.js';
import {
  cacheMode,
  connectionCount,
  detectZeroes,
  device,
  exportName,
  imageFormat,
  nbdUri,
  oneOf,
  patienceSeconds,
  snapshotChoice,
  timeoutSeconds,
} from './option-values.js';
import { DEAD_TIMEOUT_SECONDS } from './patience.js';

/** An option of `mount -o`, or of a line of fstab, that is ours; all others are for the file system. */
interface MountOption {
  /** What may be given, for the user; absent is a switch, in brackets it can be left out. */
  readonly value?: string;
  /** Throws a UsageError that says what is wrong with a value. */
  readonly read?: (text: string) => unknown;
  /** What it says something of; absent: of both. */
  readonly of?: 'image' | 'remote';
  readonly help: string;
}

// None of them is called loop, offset, sizelimit or x-…: those never come here, or act before we are called.
export const MOUNT_OPTIONS = {
  partition: {
    value: 'N|label:NAME|uuid:UUID',
    read: partitionChoice,
    help: 'mount this partition, by its number, or by the label or UUID of the partition or of the file system in it; without it, the whole disk',
  },
  fstype: {
    value: 'TYPE',
    read: fileSystemType,
    help: 'the file system, as -t tsnbd.TYPE; without it, what blkid finds',
  },
  fsck: {
    value: 'yes|auto|no',
    read: (text: string) => oneOf<FsckChoice>(text, ['yes', 'auto', 'no'], 'a way to check'),
    help: 'check and repair the file system before it is mounted, as fsck -a does: auto where there is a program for it and it is mounted to be written, yes always; no unless given. systemd gives a mount 90 seconds: x-systemd.mount-timeout gives it more',
  },
  device: {
    value: 'DEV',
    read: device,
    help: 'attach as this device; without it, one that is free',
  },
  format: { value: 'raw|qcow2', read: imageFormat, of: 'image', help: 'the format of the image' },
  cache: {
    value: 'MODE',
    read: cacheMode,
    of: 'image',
    help: 'what a write that is answered has reached, as --cache of tsnbd(8)',
  },
  'detect-zeroes': {
    value: 'off|on|unmap',
    read: detectZeroes,
    of: 'image',
    help: 'look whether writes are all zeroes, as --detect-zeroes of tsnbd(8)',
  },
  snapshot: {
    value: '[SNAPSHOT]',
    read: snapshotChoice,
    of: 'image',
    help: 'without a value, write to a temporary file that is gone after the unmount; with one, show that internal snapshot of a qcow2 image, read-only',
  },
  socket: {
    value: 'PATH',
    read: socketPath,
    of: 'remote',
    help: 'the unix socket of a nbd+unix URI, for findmnt takes a URI with an equals sign for a mistake',
  },
  name: { value: 'NAME', read: exportName, of: 'remote', help: 'the export, where the URI names none' },
  connections: {
    value: 'N',
    read: connectionCount,
    of: 'remote',
    help: 'as --connections of tsnbd-client(8): how many connections are made',
  },
  timeout: {
    value: 'SECONDS',
    read: timeoutSeconds,
    of: 'remote',
    help: 'as --timeout of tsnbd-client(8): how long a request may take',
  },
  'dead-timeout': {
    value: 'SECONDS',
    read: patienceSeconds,
    of: 'remote',
    help: `how long requests wait for a server that is gone, ${DEAD_TIMEOUT_SECONDS} unless given`,
  },
  'retry-limit': {
    value: 'SECONDS',
    read: patienceSeconds,
    of: 'remote',
    help: 'give the device up when there has been no connection for so long',
  },
  persist: {
    of: 'remote',
    help: 'connect again when the connection is lost: the default, and with it refused where it cannot be done',
  },
  nopersist: { of: 'remote', help: 'do not connect again, and keep no process behind the device' },
} as const satisfies Readonly<Record<string, MountOption>>;

type OwnName = keyof typeof MOUNT_OPTIONS;
type OwnValues = {
  readonly [Name in OwnName]?: (typeof MOUNT_OPTIONS)[Name] extends { readonly read: (text: string) => infer Value }
    ? Value | (Name extends 'snapshot' ? true : never)
    : true;
};

/** What mount(8) and systemd make of these is done before we are called, or is no matter of the file system. */
const NOT_FOR_THE_FILE_SYSTEM =
  /^(defaults|auto|noauto|nofail|_netdev|users?|nousers?|owner|group|comment|helper|uhelper|remount|[xX]-.*)$/;
const ACT_BEFORE_US = ['loop', 'offset', 'sizelimit', 'encryption', 'bind', 'rbind', 'move'];

/** What a list of mount options says. */
export interface MountSettings {
  readonly own: OwnValues;
  /** For the file system, in their order. */
  readonly inner: readonly string[];
  readonly readOnly: boolean;
  readonly remount: boolean;
  readonly nofail: boolean;
  readonly netdev: boolean;
}

/** Of an option that is given twice the last counts. @throws UsageError */
export function mountSettings(list: string): MountSettings {
  const listed = readList(list);
  const has = (name: string) => listed.some((option) => option.name === name);
  const own = Object.fromEntries(listed.filter(isOwn).map((option) => [option.name, ownValue(option)])) as OwnValues;
  for (const { name } of listed) {
    if (name.startsWith('tls-')) throw new UsageError(`option ${name}: TLS is not supported yet`);
    if (ACT_BEFORE_US.includes(name)) throw new UsageError(`option ${name}: it does not go with tsnbd`);
  }
  const inner = listed
    .filter((option) => !isOwn(option) && !NOT_FOR_THE_FILE_SYSTEM.test(option.name))
    .map(({ text }) => text);
  const isSnapshot = own.snapshot !== undefined && own.snapshot !== true;
  const readOnly = isSnapshot || inner.findLast((text) => text === 'ro' || text === 'rw') === 'ro';
  return {
    own,
    inner: isSnapshot ? [...inner.filter((text) => text !== 'rw'), 'ro'] : inner,
    readOnly,
    remount: has('remount'),
    nofail: has('nofail'),
    netdev: has('_netdev'),
  };
}

/** What a SPEC of fstab and its options ask to be attached. @throws UsageError */
export function sourceRequest(spec: string, { own, readOnly }: MountSettings): AttachRequest {
  const kind = isNbdUri(spec) ? 'remote' : 'image';
  for (const name of Object.keys(own) as OwnName[]) {
    const row: MountOption = MOUNT_OPTIONS[name];
    if (row.of === undefined || row.of === kind) continue;
    throw new UsageError(`option ${name}: it is for ${row.of === 'image' ? 'images' : 'a URI'}, and SPEC is none`);
  }
  const choice = { device: own.device, kernelApi: 'auto', forMounts: true, locksMemory: false } as const;
  if (kind === 'image') {
    if (spec === '') throw new UsageError('SPEC: an empty text is not a path');
    const temporary = own.snapshot === true;
    return {
      kind,
      imagePath: resolve(spec),
      ...choice,
      format: own.format,
      readOnly: readOnly && !temporary,
      snapshot: own.snapshot === true ? undefined : own.snapshot,
      temporary,
      forceShare: false,
      cache: own.cache,
      discard: undefined,
      detectZeroes: own['detect-zeroes'],
      persist: false,
      deadTimeoutSeconds: undefined,
    };
  }
  if (own.persist && own.nopersist) throw new UsageError('options persist and nopersist: only one of them at a time');
  for (const name of ['dead-timeout', 'retry-limit'] as const) {
    if (own.nopersist && own[name] !== undefined)
      throw new UsageError(`option ${name}: it has no effect with nopersist`);
  }
  return {
    kind,
    ...choice,
    ...about('SPEC', () => target(spec, own)),
    blockSizeBytes: undefined,
    requestTimeoutSeconds: own.timeout ?? 0,
    connections: own.connections ?? 1,
    persist: own.nopersist ? 'no' : own.persist ? 'required' : 'where-possible',
    unattended: own.nopersist ?? false,
    deadTimeoutSeconds: own['dead-timeout'] ?? DEAD_TIMEOUT_SECONDS,
    retryLimitSeconds: own['retry-limit'],
  };
}

/** The options of ours, in a paragraph each for the user. */
export function mountOptionsHelp(): readonly string[] {
  return Object.entries<MountOption>(MOUNT_OPTIONS).map(([name, { value, of, help }]) => {
    const shown =
      value === undefined ? name : value.startsWith('[') ? `${name}[=${value.slice(1)}` : `${name}=${value}`;
    const where = of === undefined ? '' : of === 'image' ? ' Of an image only.' : ' Of a URI only.';
    return `"${shown}": ${help}.${where}`;
  });
}

function target(spec: string, { socket, name }: OwnValues) {
  const found = nbdUri(socket === undefined ? spec : withSocket(spec, socket));
  if (name === undefined) return found;
  if (found.exportName !== '') throw new UsageError('the URI names an export, so there can be no option name');
  return { ...found, exportName: name };
}

function withSocket(uri: string, socket: string): string {
  if (!/^nbd\+unix:/i.test(uri)) throw new UsageError('option socket: it is for a nbd+unix URI');
  if (/[?&;]socket=/.test(uri)) throw new UsageError('the URI names a socket, so there can be no option socket');
  return `${uri}${uri.includes('?') ? '&' : '?'}socket=${encodeURIComponent(socket)}`;
}

function readList(list: string): readonly ListedOption[] {
  try {
    return listedOptions(list);
  } catch (error) {
    if (error instanceof MountError) throw new UsageError(error.message);
    throw error;
  }
}

function isOwn({ name }: ListedOption): boolean {
  return Object.hasOwn(MOUNT_OPTIONS, name);
}

function ownValue({ name, value }: ListedOption): unknown {
  const row: MountOption = MOUNT_OPTIONS[name as OwnName];
  const { read } = row;
  if (read === undefined) {
    if (value !== undefined) throw new UsageError(`option ${name}: it takes no value`);
    return true;
  }
  if (value === undefined && row.value?.startsWith('[')) return true;
  if (value === undefined) throw new UsageError(`option ${name}: it needs a value, ${row.value}`);
  return about(`option ${name}`, () => read(value));
}

const PARTITION_NUMBER_MAX = 255;

function partitionChoice(text: string): PartitionChoice {
  const named = /^(label|uuid):(.+)$/.exec(text);
  if (named !== null) return { kind: named[1] as 'label' | 'uuid', text: named[2] ?? '' };
  const number = /^[1-9][0-9]{0,2}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= PARTITION_NUMBER_MAX) return { kind: 'number', number };
  throw new UsageError(`'${text}' is not a partition: N (1 to ${PARTITION_NUMBER_MAX}), label:NAME or uuid:UUID`);
}

/** It becomes a word of mount(8), which takes a list there, and the name of a program, fsck.TYPE. */
export function fileSystemType(text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text)) return text;
  throw new UsageError(`'${text}' is not a type of file system`);
}

function socketPath(text: string): string {
  if (text.startsWith('/')) return text;
  throw new UsageError(`'${text}' is not an absolute path`);
}
