import type { AttachErrorCode } from '../attach/errors.js';
import type { DaemonErrorCode } from '../daemon/errors.js';
import type { ImageErrorCode } from '../image/errors.js';
import type { KernelErrorCode } from '../kernel/errors.js';
import type { MountErrorCode } from '../mount/errors.js';
import type { ProtocolErrorCode } from '../protocol/errors.js';
import type { ServerErrorCode } from '../server/errors.js';
import type { TransportErrorCode } from '../transport/errors.js';
import type { UsageError } from './errors.js';

/** The exit statuses of our programs; `--help` and the manual pages show this table. */
export const EXIT_STATUSES = {
  done: { status: 0, meaning: 'done' },
  other: { status: 1, meaning: 'any other failure' },
  usage: { status: 2, meaning: 'the command line makes no sense' },
  'not-root': { status: 3, meaning: 'not root' },
  'no-module': { status: 4, meaning: 'no nbd in this kernel: the module is not loaded or not there' },
  busy: { status: 5, meaning: 'the device or the image is in use' },
  refused: { status: 6, meaning: 'refused: by the server, by the kernel, or for the safety of the image' },
  'time-limit': { status: 7, meaning: 'a time limit passed' },
  lost: { status: 8, meaning: 'the connection was lost' },
} as const satisfies Readonly<Record<string, { readonly status: number; readonly meaning: string }>>;

export type ExitReason = keyof typeof EXIT_STATUSES;

/** What nbd-client's -c tells, whatever name the program is called by. */
export const CHECK_STATUSES = { attached: 0, notAttached: 1, failed: 2 } as const;

/** What `info` answers to a question, as nbdinfo does. */
export const QUESTION_STATUSES = { yes: 0, failed: 1, no: 2 } as const;

/** What `check` tells of an image, as qemu-img check does. */
export const IMAGE_CHECK_STATUSES = {
  clean: { status: 0, meaning: 'no errors (left)' },
  failed: { status: 1, meaning: 'the check failed' },
  corrupt: { status: 2, meaning: 'errors' },
  leaks: { status: 3, meaning: 'leaks and nothing worse' },
  unsupported: { status: 63, meaning: 'an image of a format that has nothing to check' },
} as const;

/** The status for `reason`. nbd-client knows no other failure than 1, and scripts that call us by its name rely on it. */
export function exitStatus(reason: ExitReason, calledAs: string): number {
  const { status } = EXIT_STATUSES[reason];
  return calledAs === 'nbd-client' && status !== 0 ? EXIT_STATUSES.other.status : status;
}

/** Why a program fails, by the code of the error that any room threw; what has no code is some other failure. */
export function exitReasonOf(error: unknown): ExitReason {
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  return Object.hasOwn(REASONS, code) ? REASONS[code as ErrorCode] : 'other';
}

type ErrorCode =
  | AttachErrorCode
  | DaemonErrorCode
  | ImageErrorCode
  | KernelErrorCode
  | MountErrorCode
  | ProtocolErrorCode
  | ServerErrorCode
  | TransportErrorCode
  | UsageError['code'];

/** Every code of every room, so that a new one does not compile until its status is chosen here. */
const REASONS: Readonly<Record<ErrorCode, ExitReason>> = {
  usage: 'usage',
  'not-root': 'not-root',
  'no-module': 'no-module',
  'no-device': 'other',
  'no-netlink': 'refused',
  busy: 'busy',
  'in-use': 'busy',
  'time-limit': 'time-limit',
  lost: 'lost',
  'no-connection': 'lost',
  'no-partition': 'other',
  ambiguous: 'other',
  interrupted: 'other',
  failed: 'other',
  died: 'other',
  'not-running': 'other',
  system: 'other',
  // No address to talk to.
  address: 'other',
  unreachable: 'other',
  // The server, the kernel, or ourselves: what the other side is or wants cannot be worked with.
  refused: 'refused',
  closed: 'refused',
  'not-nbd': 'refused',
  oldstyle: 'refused',
  violation: 'refused',
  'too-big': 'refused',
  'unusable-export': 'refused',
  aborted: 'refused',
  'unknown-export': 'refused',
  unsupported: 'refused',
  policy: 'refused',
  invalid: 'refused',
  platform: 'refused',
  'tls-required': 'refused',
  shutdown: 'refused',
  'block-size-required': 'refused',
  // The image.
  missing: 'other',
  'not-an-image': 'other',
  'read-only': 'other',
  'wrong-format': 'refused',
  damaged: 'refused',
  'own-device': 'refused',
};
