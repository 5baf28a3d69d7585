import { openControl } from '../daemon/control.js';
import { removeRunFiles, writeState } from '../daemon/state-file.js';
import { flushDevice } from '../kernel/device-child.js';
import { newIdentifier } from '../kernel/device-owner.js';
import { connectDevice, type DeviceChoice, type DeviceSetup, type NbdDevice } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { deviceBackend } from '../kernel/sysfs.js';
import { within } from '../kernel/within.js';
import type { AttachContext } from './attach-context.js';
import type { ServingChoice } from './attach-request.js';
import { refuseClaimed } from './claim.js';
import { answerControl } from './control-answers.js';
import type { DeviceRecord } from './devices.js';
import { AttachError } from './errors.js';
import { LastUserEnds } from './last-user.js';
import { clearLeftover } from './leftover.js';
import { prepareNodes } from './nodes.js';
import { waitForPartition } from './partition.js';
import type { LinkStatus, Supervisor } from './reconnect.js';
import { type NewSize, type Resizing, resize } from './resize.js';
import { waitUntilUsable } from './usable.js';
import { describeUsers } from './users.js';

/** Bounds what a dead server can do to a detach: a flush that does not end is an answer too. */
const FLUSH_LIMIT_MS = 60_000;
const DISCONNECT_LIMIT_MS = 10_000;

/** A worker of ours writes what it took and closes the image before a detach is done, unless its disk does not answer. */
const SERVER_LIMIT_MS = 10_000;

/** How an attachment ended: as somebody asked, because the server or the kernel let go, or for this process only. */
export type AttachmentEnd = 'detached' | 'lost' | 'left';

/** A device that is up and served, seen from the process that answers for it. */
export interface Attachment {
  readonly device: string;
  /** Resolves when the kernel has let go of the device, and a server of ours of its image. */
  readonly ended: Promise<AttachmentEnd>;
  /** Nobody stays behind it: the process may end, and is to undo nothing. */
  readonly isLeft: boolean;
  /** Absent: nobody replaces its connection. */
  link(): LinkStatus | undefined;
  /** Flush, disconnect, wait. Refuses while something uses the device, unless forced. */
  detach(force: boolean): Promise<void>;
}

export interface BringUpOptions {
  readonly serverEnd?: Promise<unknown>;
  readonly supervise?: (device: NbdDevice) => Supervisor | undefined;
  /** How many writes a server of ours has failed; absent: nobody counts. */
  readonly writeErrors?: () => number;
  /** Absent: it keeps its size. */
  readonly resizing?: Resizing;
}

/**
 * The second half of every attach: the device is set up with `setup`, announced to the outside by control socket and
 * state file, and waited for until it is usable. `serverEnd` resolves when a server of ours has ended; `supervise` makes
 * who watches over the connection of a device that can be given another.
 */
export async function bringUp(
  choice: DeviceChoice & ServingChoice,
  setup: DeviceSetup,
  what: Readonly<Record<string, unknown>>,
  { undo, onEvent, stop }: AttachContext,
  { serverEnd, supervise, writeErrors, resizing }: BringUpOptions = {},
): Promise<Attachment> {
  if (choice.device !== undefined) await clearLeftover(choice.device, (text) => onEvent({ kind: 'notice', text }));
  const nodes = await prepareNodes(choice, undo);
  const nbd = await connectDevice(choice, setup, undo);
  const { name: device, kernelApi } = nbd;
  const about = { ...what, ...recordOf(nbd, setup), ...marksOf(choice, setup) };
  const supervisor = supervise?.(nbd);
  const isLeft = setup.unattended && nbd.leave !== undefined;
  const attachment = new DeviceAttachment(nbd, supervisor, serverEnd, isLeft);
  const resizeIt = async (wanted: NewSize) => {
    attachment.refuseWithoutConnection();
    const sizeBytes = await resize(nbd, setup.blockSizeBytes, wanted, resizing, supervisor);
    writeState(device, { ...about, sizeBytes });
    return sizeBytes;
  };
  // From here on the device is ours alone, so what a dead process left under its name is replaced.
  if (!isLeft) {
    await undo.step(
      'open the control socket',
      () => openControl(device, (question) => answerControl(attachment, { about, writeErrors, resizeIt }, question)),
      (control) => control.close(),
    );
  }
  await undo.step(
    'write the state file',
    () => writeState(device, about),
    () => removeRunFiles(device),
  );
  const partitions = await undo.step('wait until the device is usable', () =>
    Promise.race([
      waitUntilUsable(device, setup.sizeBytes, (name) => nodes.push(name)),
      lostMeanwhile(attachment),
      aborted(stop),
    ]),
  );
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
  if (choice.disconnectOnClose) {
    await undo.step(
      'watch for its first user',
      () => attachment.endWithLastUser(),
      (watch) => watch.stop(),
    );
  }
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

/** What `status` is to tell of it for as long as it is attached. */
function recordOf({ name, kernelApi, link }: NbdDevice, setup: DeviceSetup): Omit<DeviceRecord, 'kind'> {
  const { blockSizeBytes, flags, sockets, requestTimeoutSeconds, deadTimeoutSeconds } = setup;
  return {
    kernelApi,
    blockSizeBytes,
    flags,
    connections: sockets.length,
    requestTimeoutSeconds,
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

class DeviceAttachment implements Attachment {
  readonly device: string;
  readonly ended: Promise<AttachmentEnd>;
  readonly isLeft: boolean;
  readonly #nbd: NbdDevice;
  readonly #supervisor: Supervisor | undefined;
  #lastUser: LastUserEnds | undefined;
  #asked = false;
  /** The kernel tells a lost write once; we go on telling it. */
  #lostWrites: string | undefined;

  constructor(
    nbd: NbdDevice,
    supervisor: Supervisor | undefined,
    serverEnd: Promise<unknown> | undefined,
    isLeft: boolean,
  ) {
    this.device = nbd.name;
    this.isLeft = isLeft;
    this.#nbd = nbd;
    this.#supervisor = supervisor;
    this.ended = nbd.ended.then(async () => {
      if (serverEnd !== undefined) await within(serverEnd, SERVER_LIMIT_MS);
      return this.#asked || this.#lastUser?.isOn ? 'detached' : 'lost';
    });
  }

  link(): LinkStatus | undefined {
    return this.#supervisor?.status();
  }

  endWithLastUser(): LastUserEnds {
    this.#lastUser = new LastUserEnds(this.#nbd, () => void this.detach(false).catch(() => {}));
    this.#lastUser.start();
    return this.#lastUser;
  }

  async detach(force: boolean): Promise<void> {
    if (!force) {
      this.#refuseIfUsed();
      this.refuseWithoutConnection();
      await refuseClaimed(this.device, this.#nbd.kernelApi === 'ioctl' ? 1 : 0);
    }
    if (this.#isConnected()) await this.#flush(force);
    if (!force) this.#refuseIfUsed(); // a flush takes its time
    this.#asked = true;
    void this.#supervisor?.stop(); // the connection is to end now
    this.#nbd.disconnect();
    const cutLater = setTimeout(() => this.#nbd.cut(), DISCONNECT_LIMIT_MS);
    await this.ended;
    clearTimeout(cutLater);
  }

  #refuseIfUsed(): void {
    const users = deviceUsers(this.device);
    if (users.length > 0) throw new AttachError('busy', `/dev/${this.device} is in use: ${describeUsers(users)}`);
  }

  /** A flush would wait for the server, and what is not written yet may still be when it is back. */
  refuseWithoutConnection(): void {
    if (this.#isConnected()) return;
    throw new AttachError(
      'no-connection',
      `/dev/${this.device} has no connection to its server; try again when it is back, or --force to lose what was not written yet`,
    );
  }

  #isConnected(): boolean {
    return (this.#supervisor?.status().state ?? 'connected') === 'connected';
  }

  async #flush(force: boolean): Promise<void> {
    const end = await flushDevice(this.device, FLUSH_LIMIT_MS);
    if (end.kind === 'lost') this.#lostWrites ??= end.why;
    if (force) return;
    if (this.#lostWrites !== undefined) {
      const lost = `the server did not take all that was written to /dev/${this.device}`;
      throw new AttachError('lost', `${lost} (${this.#lostWrites}); --force detaches it, and what was lost stays lost`);
    }
    if (end.kind === 'unfinished') {
      const late = `what was written to /dev/${this.device} could not be flushed`;
      throw new AttachError('time-limit', `${late}: ${end.why}; try again, or --force to lose it`);
    }
  }
}

/** Never resolves; rejects when `stop` is aborted. */
function aborted(stop: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (stop.aborted) reject(stop.reason);
    stop.addEventListener('abort', () => reject(stop.reason), { once: true });
  });
}

async function lostMeanwhile(attachment: Attachment): Promise<never> {
  await attachment.ended;
  throw new AttachError('lost', 'the connection was lost before the device was usable');
}
