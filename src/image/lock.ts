import { lockByteRead, probeByteLock } from '../kernel/fd-calls.js';

/** What an opening of an image does with it, and what it cannot stand others to do. */
export interface LockPlan {
  readonly uses: readonly Permission[];
  readonly unshared: readonly Permission[];
}

/** The bits of QEMU's permissions (block/file-posix.c, include/block/block-common.h). */
const permissionBits = { read: 0, write: 1, resize: 3 } as const;

export type Permission = keyof typeof permissionBits;

/** Somebody else uses what we cannot share ('used'), or does not share what we would use ('unshared'). */
export interface LockConflict {
  readonly kind: 'used' | 'unshared';
  readonly permission: Permission;
}

/** A byte of the file locked for each permission in use, and another for each that is not shared. */
const usedBase = 100;
const unsharedBase = 200;

/**
 * The locks of a raw image. QEMU lets a second writer in beside the first, for guests that share a disk: we do not. A file
 * that may grow is `resizable`.
 */
export function rawLockPlan(readOnly: boolean, resizable: boolean): LockPlan {
  if (readOnly) return { uses: ['read'], unshared: ['resize'] };
  return { uses: resizable ? ['read', 'write', 'resize'] : ['read', 'write'], unshared: ['write', 'resize'] };
}

/** The locks of a qcow2 image, which grows as it is written to, of its data file, and of what is behind an image. */
export function layerLockPlan(readOnly: boolean): LockPlan {
  return { uses: readOnly ? ['read'] : ['read', 'write', 'resize'], unshared: ['write', 'resize'] };
}

/**
 * Takes QEMU's locks on an open file: each a shared (read) OFD lock on one byte, which goes when the file's last fd is
 * closed. All are taken first, then it is looked whether they go with everybody else's: of two that come at once both may
 * be refused, never neither. After a conflict the caller closes the fd.
 *
 * @throws KernelError 'system' where the file system has no locks
 */
export function takeLocks(fd: number, { uses, unshared }: LockPlan): LockConflict | undefined {
  for (const permission of uses) {
    if (!lockByteRead(fd, usedBase + permissionBits[permission])) return { kind: 'unshared', permission };
  }
  for (const permission of unshared) {
    if (!lockByteRead(fd, unsharedBase + permissionBits[permission])) return { kind: 'used', permission };
  }
  for (const permission of uses) {
    if (probeByteLock(fd, unsharedBase + permissionBits[permission])) return { kind: 'unshared', permission };
  }
  for (const permission of unshared) {
    if (probeByteLock(fd, usedBase + permissionBits[permission])) return { kind: 'used', permission };
  }
  return undefined;
}

/**
 * Marks another open file of the same file, which has its locks, as one that is written by: what is on its way there can
 * outlive the process (io_uring), and nobody else is to open the image before it has arrived.
 */
export function markWriting(fd: number): void {
  lockByteRead(fd, usedBase + permissionBits.write);
}

/** Whether somebody else writes to the file, or may. */
export function isWrittenByAnother(fd: number): boolean {
  return probeByteLock(fd, usedBase + permissionBits.write);
}
