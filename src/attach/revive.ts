import { closeSync, fstatSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { invariant } from '../base/invariant.js';
import { messageOf } from '../base/message-of.js';
import { readLastState, readState } from '../daemon/state-file.js';
import { CACHE_MODES } from '../image/cache-modes.js';
import { ImageError } from '../image/errors.js';
import { type OpenedImage, openImage } from '../image/open-image.js';
import { identityOf } from '../image/seen-files.js';
import { tellOfTrouble } from '../image/trouble.js';
import { socketPair } from '../kernel/fd-calls.js';
import type { DeviceLink, DeviceSetup } from '../kernel/nbd-device.js';
import { adoptDevice } from '../kernel/nbd-netlink.js';
import { deviceBackend } from '../kernel/sysfs.js';
import { imageFlags } from '../server/exports.js';
import type { SpareWorker } from '../server/spare-workers.js';
import type { AttachContext } from './attach-context.js';
import type { ImageAttachRequest } from './attach-request.js';
import { type Attachment, answerFor } from './attachment.js';
import { withDeviceLock } from './device-lock.js';
import type { DeviceRecord, ServedRecord } from './devices.js';
import { AttachError } from './errors.js';
import { handOverImage } from './hand-over.js';
import { ImageServer } from './image-server.js';
import { launchStandBy } from './launch-stand-by.js';
import { dropNodes } from './nodes.js';

/** What the killed process had on its way to the disk keeps the image locked until it has arrived. */
const LOCKED_LIMIT_MS = 30_000;
const LOCKED_PAUSE_MS = 100;

/**
 * Goes on with an image whose process was killed: opens it anew, and gives the kernel another connection. It is opened only
 * when that process is gone, and locked as long as something of its writes is on its way: none can come to lie over a
 * later one. With a worker that waits, if given.
 *
 * @throws AttachError 'refused' where the device cannot come back, 'busy' where somebody else serves it; ImageError,
 * KernelError
 */
export async function revive(device: string, context: AttachContext, spare?: SpareWorker): Promise<Attachment> {
  const { undo, onEvent } = context;
  const { about: last, served } = lastRecord(device);
  const about = { ...last, countedSinceMs: Date.now() };
  const { request } = served;
  refuseForgetful(request, about.format);
  refuseLost(last);
  const image = await undo.step(
    'open the image',
    () => openUnlocked(device, request),
    (opened) => opened.close(),
  );
  requireSame(image, served);
  tellOfTrouble(request.imagePath, image, (text) => onEvent({ kind: 'notice', text }));
  const server = await undo.step(
    'start the worker',
    () => new ImageServer(image),
    (started) => started.stop(),
  );
  const { kernelEnd } = server.ends;
  const attachment = await withDeviceLock(device, async () => {
    lastRecord(device); // who has read the state before us may be done by now, and the device taken down
    server.goOn(spare?.take());
    const setup = { ...served.setup, sockets: [kernelEnd] };
    await undo.step('reconnect the device', () => reconnect(device, setup, about.backend ?? ''));
    let isOurs = false;
    const nbd = await undo.step(
      'adopt the device',
      () => adoptDevice(device, setup, about.backend ?? '', request.destroyOnDisconnect),
      async (adopted) => {
        if (!isOurs) return adopted.leave();
        await adopted.stop();
        dropNodes(device, about);
      },
    );
    const answering = await answerFor(nbd, about, setup, context, {
      serverEnd: server.ended,
      image,
      handOver: handOverImage({ request, setup, image, server }),
      writeErrors: () => server.writeErrors(),
    });
    isOurs = true;
    return answering;
  });
  if (request.persist) {
    await launchStandBy(device, request, kernelEnd).catch((error: unknown) => {
      const why = messageOf(error);
      onEvent({ kind: 'notice', text: `nobody goes on when this process is killed: ${why}` });
    });
  }
  return attachment;
}

/** An image that forgets with its process what it has acknowledged must not come back as if nothing had been. */
export function refuseForgetful(request: ImageAttachRequest, format: string | undefined): void {
  const { cache = 'writeback', readOnly, temporary } = request;
  const why = temporary
    ? 'what is written with --snapshot is gone with the process that serves it'
    : format === 'raw' || readOnly || CACHE_MODES[cache].durable === 'always'
      ? undefined
      : 'the tables of a qcow2 image are in the memory of the process that serves it until a flush; --cache=writethrough and directsync write them at once';
  if (why !== undefined)
    throw new AttachError('refused', `nobody can go on with it when its process is killed: ${why}`);
}

/** What the killed process could not bring to the disk may be lost, and whoever opens the image now would acknowledge it. */
function refuseLost({ isLost, imagePath }: DeviceRecord): void {
  if (!isLost) return;
  const lost = `what was written to ${imagePath} could not be brought to stable storage before its process was killed`;
  throw new AttachError('lost', `${lost}; detach the device, and check what is on it`);
}

/** What the killed process wrote down of a device that still waits. @throws AttachError 'refused' or 'busy' */
export function lastRecord(device: string): { readonly about: DeviceRecord; readonly served: ServedRecord } {
  refuseServed(device);
  const about = readLastState(device)?.about as DeviceRecord | undefined;
  const served = about?.served;
  if (about !== undefined && served !== undefined && about.backend === deviceBackend(device)) return { about, served };
  throw new AttachError('refused', `/dev/${device} is no image that a process of ours served by netlink`);
}

function refuseServed(device: string): void {
  const state = readState(device);
  if (state !== undefined) throw new AttachError('busy', `/dev/${device} is served by process ${state.pid}`);
}

async function openUnlocked(device: string, request: ImageAttachRequest): Promise<OpenedImage> {
  for (const end = performance.now() + LOCKED_LIMIT_MS; ; await sleep(LOCKED_PAUSE_MS)) {
    refuseServed(device);
    try {
      return openImage(request.imagePath, { ...request, becomes: device });
    } catch (error) {
      if (!(error instanceof ImageError && error.code === 'in-use') || performance.now() > end) throw error;
    }
  }
}

/** The kernel keeps what it was told of the device, and what was written to one disk must not go on on another. */
function requireSame(image: OpenedImage, { setup, files }: ServedRecord): void {
  const found = [...image.files].map(([path, fd]) => [path, identityOf(fstatSync(fd))]);
  if (JSON.stringify(found) !== JSON.stringify(files)) {
    throw new AttachError('refused', 'the image, or one that it is read from, is another file than before');
  }
  if (image.sizeBytes < setup.sizeBytes || imageFlags(image, true) !== setup.flags) {
    throw new AttachError('refused', 'the image is not what it was when it was attached');
  }
}

/**
 * Has what was sent to the killed process fail, and what comes, until somebody goes on with the image. Answers false where
 * somebody does already.
 *
 * @throws AttachError 'refused' or 'busy', KernelError
 */
export function failRequests(device: string): Promise<boolean> {
  return withDeviceLock(device, async () => {
    if (readState(device) !== undefined) return false;
    const { about, served } = lastRecord(device);
    await withoutConnection(device, served.setup, about.backend ?? '', (link) => link.failRequests());
    return true;
  });
}

/** Whoever adopts the device then finds it connected. */
async function reconnect(device: string, setup: DeviceSetup, backend: string): Promise<void> {
  await withoutConnection(device, setup, backend, async (link) => {
    if (setup.deadTimeoutSeconds !== undefined) link.mayFailRequests();
    for (const socket of setup.sockets) {
      if ((await link.replace(socket)) !== undefined) continue;
      throw new AttachError('refused', `/dev/${device} is not the device any more that it was`);
    }
  });
}

/** A device whose connection was lost with the process that had it. */
async function withoutConnection(
  device: string,
  setup: Omit<DeviceSetup, 'sockets'>,
  backend: string,
  act: (link: DeviceLink) => Promise<void>,
): Promise<void> {
  const [lost, other] = socketPair();
  closeSync(other);
  const { deadTimeoutSeconds = 0 } = setup;
  const nbd = await adoptDevice(device, { ...setup, deadTimeoutSeconds, sockets: [lost] }, backend, undefined);
  try {
    invariant(nbd.link !== undefined, 'a device of netlink with a dead-connection limit has connections to replace');
    nbd.link.takeOver();
    await act(nbd.link);
  } finally {
    nbd.leave();
    closeSync(lost);
  }
}
