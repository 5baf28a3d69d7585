import { openControl } from '../daemon/control.js';
import { removeRunFiles, writeState } from '../daemon/state-file.js';
import type { OpenedImage } from '../image/open-image.js';
import { onLost } from '../image/trouble.js';
import { newIdentifier } from '../kernel/device-owner.js';
import { connectDevice, type DeviceChoice, type DeviceSetup, type NbdDevice } from '../kernel/nbd-device.js';
import { effectiveTimeoutSeconds } from '../kernel/resend.js';
import { isHungUp } from '../kernel/socket-calls.js';
import { deviceBackend } from '../kernel/sysfs.js';
import type { AttachContext } from './attach-context.js';
import type { ServingChoice } from './attach-request.js';
import { answerControl } from './control-answers.js';
import { type AttachmentParts, DeviceAttachment } from './device-attachment.js';
import type { DeviceRecord } from './devices.js';
import { AttachError } from './errors.js';
import { clearLeftover } from './leftover.js';
import { madeNode, prepareNodes } from './nodes.js';
import { hidesPartitions, noPartitions, waitForPartition } from './partition.js';
import type { LinkStatus, Supervisor } from './reconnect.js';
import { type NodeWatch, waitUntilUsable } from './usable.js';

/**
 * How an attachment ended: as somebody asked, because the server or the kernel let go; or for this process only, because
 * nobody stays behind it, or another process does.
 */
export type AttachmentEnd = 'detached' | 'lost' | 'left' | 'handed over';

/** A device that is up and served, seen from the process that answers for it. */
export interface Attachment {
  readonly device: string;
  /** Resolves when the kernel has let go of the device, and a server of ours of its image. */
  readonly ended: Promise<AttachmentEnd>;
  /** Nobody stays behind it: the process may end, and is to undo nothing. */
  readonly isLeft: boolean;
  /** Absent: nobody replaces its connection. */
  link(): LinkStatus | undefined;
  /** How many writes have failed; absent: nobody counts. */
  readonly writeErrors: (() => number) | undefined;
  /** Flush, disconnect, wait. Refuses while something uses the device, unless forced. */
  detach(force: boolean): Promise<void>;
}

/** What a device record says of where the device comes from. */
type What = Pick<
  DeviceRecord,
  | 'kind'
  | 'address'
  | 'exportName'
  | 'tcp'
  | 'imagePath'
  | 'format'
  | 'readOnly'
  | 'temporary'
  | 'snapshot'
  | 'forMounts'
>;

interface BringUpOptions
  extends Pick<AttachmentParts, 'serverEnd' | 'image' | 'handOver' | 'writeErrors' | 'resizing'> {
  /** Makes who watches over its connection; `record` writes down what of the device has changed. */
  readonly supervise?: (device: NbdDevice, record: () => void) => Supervisor | undefined;
  /** Starts another process that is to stay as long as the device. */
  readonly startSecond?: ((device: string) => Promise<void>) | undefined;
}

/**
 * The second half of every attach: the device is set up with `setup`, announced to the outside by control socket and
 * state file, and waited for until it is usable.
 */
export async function bringUp(
  choice: DeviceChoice & ServingChoice,
  setup: DeviceSetup,
  what: What,
  context: AttachContext,
  { supervise, startSecond, ...options }: BringUpOptions = {},
): Promise<Attachment> {
  const { undo, onEvent, stop } = context;
  if (choice.device !== undefined) await clearLeftover(choice.device, (text) => onEvent({ kind: 'notice', text }));
  const nodes = await prepareNodes(choice, undo);
  const nbd = await connectDevice(choice, setup, undo);
  const { name: device, kernelApi } = nbd;
  const supervisor = supervise?.(nbd, () => record());
  const isLeft = setup.unattended && nbd.leave !== undefined;
  // From here on the device is ours alone, so what a dead process left under its name is replaced.
  nodes.isUp(device);
  const about = { ...what, ...recordOf(nbd, setup), ...marksOf(choice, setup), nodes: nodes.made };
  const attachment = await answerFor(nbd, about, setup, context, { ...options, supervisor, isLeft });
  const record = recorderOf(attachment);
  const onMade = (name: string) => {
    nodes.made.push(madeNode(name));
    record();
  };
  const onLate = (text: string) => onEvent({ kind: 'notice', text });
  const partitions = await undo.step('wait until the device is usable', () =>
    Promise.race([
      usableByConnection(device, setup, { isLeft, udev: nodes.udev, onMade, onLate }),
      lostMeanwhile(attachment),
      aborted(stop),
    ]),
  );
  if (await hidesPartitions(device)) onEvent({ kind: 'notice', text: noPartitions });
  if (supervisor !== undefined) {
    await undo.step(
      'watch over the connection',
      () => supervisor.start(),
      () => supervisor.stop(),
    );
  }
  const { waitPartition } = choice;
  const awaited =
    waitPartition === undefined
      ? {}
      : await undo.step('wait for the partition', async () => ({
          awaited: await Promise.race([
            waitForPartition(device, waitPartition),
            lostMeanwhile(attachment),
            aborted(stop),
          ]),
        }));
  const { disconnectOnClose } = choice;
  if (disconnectOnClose !== undefined) {
    await undo.step(
      'watch for its first user',
      () => attachment.endWithLastUser(disconnectOnClose),
      (watch) => watch.stop(),
    );
  }
  if (startSecond !== undefined) await undo.step('start the second process', () => startSecond(device));
  onEvent({
    kind: 'attached',
    device,
    kernelApi,
    sizeBytes: setup.sizeBytes,
    blockSizeBytes: setup.blockSizeBytes,
    requestTimeoutSeconds: setup.requestTimeoutSeconds,
    partitions,
    ...awaited,
  });
  if (isLeft) nbd.leave?.();
  return attachment;
}

/**
 * Tells the outside, by control socket and state file, that this process answers for a device that is up. Before the
 * socket of another process is replaced, `takesOver` is called.
 */
export async function answerFor(
  nbd: NbdDevice,
  about: DeviceRecord,
  setup: DeviceSetup,
  context: Pick<AttachContext, 'undo' | 'inBackground'>,
  parts: AttachmentParts,
  takesOver: () => Promise<void> = async () => {},
): Promise<DeviceAttachment> {
  const { name: device } = nbd;
  const { undo } = context;
  const attachment = new DeviceAttachment(nbd, about, setup, context, parts);
  const control = parts.isLeft
    ? undefined
    : await undo.step(
        'open the control socket',
        () => openControl(device, (question) => answerControl(attachment, question)),
        (opened) => opened.close(),
      );
  await undo.step(
    'write the state file',
    () => writeState(device, about),
    () => removeRunFiles(device),
  );
  if (parts.image !== undefined) recordLoss(attachment, parts.image);
  await takesOver();
  control?.show();
  return attachment;
}

/** Who goes on when this process is killed opens the image anew, to which the kernel does not tell of a lost write again. */
function recordLoss(attachment: DeviceAttachment, image: OpenedImage): void {
  const record = recorderOf(attachment);
  onLost(image, () => {
    attachment.about.isLost = true;
    record();
  });
}

/** Writes down what has changed of a device, until it has ended. */
function recorderOf({ device, about, ended }: DeviceAttachment): () => void {
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  return () => {
    if (!isOver) writeState(device, about);
  };
}

/** What `status` is to tell of it for as long as it is attached. */
function recordOf({ name, kernelApi, link }: NbdDevice, setup: DeviceSetup): Omit<DeviceRecord, keyof What> {
  const { blockSizeBytes, flags, sockets, deadTimeoutSeconds } = setup;
  return {
    kernelApi,
    blockSizeBytes,
    flags,
    connections: sockets.length,
    requestTimeoutSeconds: effectiveTimeoutSeconds(setup),
    ...(link === undefined || deadTimeoutSeconds === undefined ? {} : { deadTimeoutSeconds }),
    attachedAtMs: Date.now(),
    ...(kernelApi === 'netlink' ? { backend: deviceBackend(name) ?? '' } : {}),
  };
}

/** What the next needs to know that finds the device without its process (leftover.ts, detach.ts). */
function marksOf({ identifier, destroyOnDisconnect }: DeviceChoice, { unattended }: DeviceSetup) {
  return {
    ...(identifier === undefined ? {} : { owner: newIdentifier(unattended) }),
    ...(destroyOnDisconnect ? { destroyOnDisconnect } : {}),
  };
}

/** Never resolves; rejects when `stop` is aborted. */
function aborted(stop: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (stop.aborted) reject(stop.reason);
    stop.addEventListener('abort', () => reject(stop.reason), { once: true });
  });
}

/** A lost connection ends the reading of the partition table too, as if there were none: the device is about to go then. */
async function usableByConnection(
  device: string,
  { sizeBytes, sockets }: DeviceSetup,
  watch: NodeWatch,
): Promise<readonly string[]> {
  const partitions = await waitUntilUsable(device, sizeBytes, watch);
  if (sockets.every(isHungUp)) throw lostBefore();
  return partitions;
}

async function lostMeanwhile(attachment: Attachment): Promise<never> {
  await attachment.ended;
  throw lostBefore();
}

function lostBefore(): AttachError {
  return new AttachError('lost', 'the connection was lost before the device was usable');
}
