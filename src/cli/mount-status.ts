import type { Answer } from './parse.js';

/** The exit statuses of mount(8), which mount.tsnbd, umount.tsnbd, and tsnbd mount and umount have. */
export const MOUNT_STATUSES = {
  done: { status: 0, meaning: 'done' },
  usage: { status: 1, meaning: 'the command line makes no sense, or only root may do that' },
  system: { status: 2, meaning: 'the system is not fit for it; or it is unmounted, and the device stays attached' },
  internal: { status: 4, meaning: 'a fault in the program' },
  interrupted: { status: 8, meaning: 'interrupted, and undone' },
  failed: { status: 32, meaning: 'it is not mounted, or not unmounted' },
} as const satisfies Readonly<Record<string, { readonly status: number; readonly meaning: string }>>;

type MountReason = keyof typeof MOUNT_STATUSES;

/** What is no failure of the mount itself, by the code of the error that any room threw. */
const REASONS: Readonly<Record<string, MountReason>> = {
  usage: 'usage',
  'not-root': 'usage',
  system: 'system',
  'no-module': 'system',
  'no-device': 'system',
  'no-netlink': 'system',
  interrupted: 'interrupted',
};

export function mountStatus(error: unknown): number {
  const { code } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown };
  if (typeof code !== 'string') return MOUNT_STATUSES.internal.status;
  if (Object.hasOwn(REASONS, code)) return MOUNT_STATUSES[REASONS[code] as MountReason].status;
  // Every other code of ours is a failure; a name in capitals is what the system did not do.
  return MOUNT_STATUSES[/^E[A-Z0-9]+$/.test(code) ? 'system' : 'failed'].status;
}

/** A mistake in the command line has the status that it has for mount(8). */
export function asMountSays<Action>(action: Action | Answer): Action | Answer {
  const { kind } = action as Answer;
  if (kind !== 'usage-error') return action;
  return { ...(action as Answer & { kind: 'usage-error' }), status: MOUNT_STATUSES.usage.status };
}

/** For the manual page of tsnbd, which has a table of its own. */
export const MOUNT_STATUS_NOTE = `Of mount and umount, as those of mount(8): ${Object.values(MOUNT_STATUSES)
  .map(({ status, meaning }) => `${status} ${meaning}`)
  .join('; ')}.`;
