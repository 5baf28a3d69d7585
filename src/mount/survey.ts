import type { OnAttachEvent } from '../attach/attach-event.js';
import type { AttachRequest } from '../attach/attach-request.js';
import { detachUnused } from '../attach/detach-unused.js';
import { type FoundContent, probeFileSystems } from '../attach/probe.js';
import { requireRoot } from '../kernel/nbd-device.js';
import { deviceState } from '../kernel/sysfs.js';
import { deviceOf } from './attach-source.js';
import { MountError } from './errors.js';
import { LOCK_LIMIT_MS, takeLock } from './locks.js';
import { sourceName } from './source.js';

const CLAIMED_LIMIT_MS = 10_000;

/** What a source holds, the whole disk first and then its partitions. */
export interface SurveyedSource {
  readonly device: string;
  readonly found: readonly FoundContent[];
}

/** Attaches a source, unless it is, looks what is on it, and detaches it again. @throws whatever an attach does */
export async function surveySource(request: AttachRequest, onEvent: OnAttachEvent): Promise<SurveyedSource> {
  requireRoot('attach a network block device to look at it');
  const unlock = await takeLock({ source: sourceName(request) }, LOCK_LIMIT_MS);
  if (unlock === undefined) throw new MountError('failed', 'another mount or unmount of it has not ended');
  try {
    // The service, where there is one, is stopped before nothing in particular.
    const { device, isNew } = await deviceOf(request, '/', { onEvent, stop: new AbortController().signal });
    try {
      return { device, found: await probeFileSystems([device, ...deviceState(device).partitions]) };
    } finally {
      if (isNew) await detachUnused(device, { claimedLimitMs: CLAIMED_LIMIT_MS, force: false, onNotice: () => {} });
    }
  } finally {
    unlock();
  }
}
