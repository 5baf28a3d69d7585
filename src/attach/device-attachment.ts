import { writeState } from '../daemon/state-file.js';
import type { OpenedImage } from '../image/open-image.js';
import { flushDevice } from '../kernel/device-child.js';
import type { DeviceSetup, NbdDevice } from '../kernel/nbd-device.js';
import { deviceUsers } from '../kernel/proc.js';
import { within } from '../kernel/within.js';
import type { AttachContext } from './attach-context.js';
import type { Attachment, AttachmentEnd } from './attachment.js';
import { refuseClaimed } from './claim.js';
import type { DeviceRecord } from './devices.js';
import { AttachError } from './errors.js';
import type { HandOver } from './hand-over.js';
import { LastUserEnds } from './last-user.js';
import type { LinkStatus, Supervisor } from './reconnect.js';
import { type NewSize, type Resizing, resize } from './resize.js';
import { Standstill } from './standstill.js';
import type { Program } from './succession.js';
import { describeUsers } from './users.js';

/** Bounds what a dead server can do to a detach: a flush that does not end is an answer too. */
const FLUSH_LIMIT_MS = 60_000;
const DISCONNECT_LIMIT_MS = 10_000;
/** A server that has done nothing for so long is not waited for any more where a device is to go by force. */
const STUCK_MS = 10_000;
const LOOK_MS = 250;

/** A worker of ours writes what it took and closes the image before a detach is done, unless its disk does not answer. */
const SERVER_LIMIT_MS = 10_000;

/** What there is of a device besides itself. */
export interface AttachmentParts {
  /** Resolves when a server of ours has ended. */
  readonly serverEnd?: Promise<unknown>;
  readonly supervisor?: Supervisor | undefined;
  readonly isLeft?: boolean;
  /** What a server of ours serves. */
  readonly image?: OpenedImage;
  /** Absent where no other process can go on with it. */
  readonly handOver?: HandOver;
  /** How many writes a server of ours has failed; absent: nobody counts. */
  readonly writeErrors?: () => number;
  /** Absent: it keeps its size. */
  readonly resizing?: Resizing;
}

/** A device that this process answers for. */
export class DeviceAttachment implements Attachment {
  readonly device: string;
  readonly about: DeviceRecord;
  readonly ended: Promise<AttachmentEnd>;
  readonly isLeft: boolean;
  readonly writeErrors: (() => number) | undefined;
  readonly #nbd: NbdDevice;
  readonly #setup: DeviceSetup;
  readonly #resizing: Resizing | undefined;
  readonly #supervisor: Supervisor | undefined;
  readonly #handOver: HandOver | undefined;
  readonly #inBackground: boolean;
  #lastUser: LastUserEnds | undefined;
  #asked = false;
  #handingOver: Promise<unknown> | undefined;
  /** Ends this process's part; called when the one before knows that another has taken over. */
  #leave: (end: 'handed over') => void = () => {};
  /** The kernel tells a lost write once; we go on telling it. */
  #lostWrites: string | undefined;

  constructor(
    nbd: NbdDevice,
    about: DeviceRecord,
    setup: DeviceSetup,
    { inBackground }: Pick<AttachContext, 'inBackground'>,
    { supervisor, serverEnd, isLeft = false, handOver, writeErrors, resizing }: AttachmentParts,
  ) {
    this.device = nbd.name;
    this.about = about;
    this.isLeft = isLeft;
    this.writeErrors = writeErrors;
    this.#nbd = nbd;
    this.#setup = setup;
    this.#resizing = resizing;
    this.#supervisor = supervisor;
    this.#handOver = handOver;
    this.#inBackground = inBackground;
    const left = new Promise<'handed over'>((resolve) => {
      this.#leave = resolve;
    });
    const gone = nbd.ended.then(async ({ byOther }) => {
      if (serverEnd !== undefined) await within(serverEnd, SERVER_LIMIT_MS);
      return this.#asked || (byOther && this.#lastUser?.isOn) ? 'detached' : 'lost';
    });
    this.ended = Promise.race([gone, left]);
    if (serverEnd !== undefined) nbd.servedUntil?.(serverEnd);
  }

  link(): LinkStatus | undefined {
    return this.#supervisor?.status();
  }

  endWithLastUser(since: 'once used' | 'once told'): LastUserEnds {
    this.#lastUser = new LastUserEnds(this.#nbd, () => void this.detach(false).catch(() => {}));
    if (since === 'once used') this.#lastUser.start();
    return this.#lastUser;
  }

  /** The command that attached it has done its part, and has the device open until this is done. */
  async leaveToLastUser(): Promise<void> {
    if (this.#lastUser === undefined) {
      throw new AttachError('refused', `/dev/${this.device} was attached without --disconnect-on-close`);
    }
    await this.#lastUser.turnOn();
  }

  /** Gives it another size; answers that. */
  async resize(wanted: NewSize): Promise<number> {
    this.#refuseWithoutConnection();
    return resize(this.#nbd, this.#setup.blockSizeBytes, wanted, this.#resizing, this.#supervisor, () => this.#flush());
  }

  /** Has a process of `program` go on with the device; answers its number. `left` is to be called then. */
  async handOver(program: Program): Promise<number> {
    const { device } = this;
    if (this.#handOver === undefined) {
      throw new AttachError('refused', `/dev/${device} is not an image: no process of ours serves it`);
    }
    if (this.#nbd.kernelApi === 'ioctl') {
      throw new AttachError(
        'refused',
        `/dev/${device} was set up by ioctl, and ends with the process that did that (NBD_DO_IT sleeps in it); only a device of netlink can be served by another`,
      );
    }
    if (this.#lastUser !== undefined) {
      throw new AttachError(
        'refused',
        `/dev/${device} was attached with --disconnect-on-close, which its process does`,
      );
    }
    if (!this.#inBackground) {
      throw new AttachError(
        'refused',
        `/dev/${device} is served in the foreground (--nofork), by a process of its own`,
      );
    }
    if (this.#asked || this.#handingOver !== undefined) {
      throw new AttachError('busy', `/dev/${device} is being detached or restarted`);
    }
    const handingOver = this.#handOver(device, this.about, program);
    this.#handingOver = handingOver.catch(() => {}); // whoever detaches waits for it
    try {
      return await handingOver;
    } catch (error) {
      this.#handingOver = undefined;
      writeState(device, this.about); // the other one may have written its own
      throw error;
    }
  }

  left(): void {
    this.#leave('handed over');
  }

  async detach(force: boolean): Promise<void> {
    await this.#handingOver;
    if (this.#handingOver !== undefined) {
      throw new AttachError('busy', `/dev/${this.device} is served by another process now`);
    }
    if (!force) {
      this.#refuseIfUsed();
      this.#refuseWithoutConnection();
      await refuseClaimed(this.device, this.#nbd.kernelApi === 'ioctl' ? 1 : 0);
    }
    let isStuck = false;
    if (this.#isConnected()) {
      if (force) isStuck = !(await this.#flushWhileTaken());
      else await this.#flush();
    }
    if (!force) this.#refuseIfUsed(); // a flush takes its time
    this.#asked = true;
    void this.#supervisor?.stop(); // the connection is to end now
    this.#nbd.disconnect();
    const cutLater = setTimeout(() => this.#nbd.cut(), isStuck ? 0 : DISCONNECT_LIMIT_MS);
    await this.ended;
    clearTimeout(cutLater);
  }

  #refuseIfUsed(): void {
    const users = deviceUsers(this.device);
    if (users.length > 0) throw new AttachError('busy', `/dev/${this.device} is in use: ${describeUsers(users)}`);
  }

  /** A flush would wait for the server, and what is not written yet may still be when it is back. */
  #refuseWithoutConnection(): void {
    if (this.#isConnected()) return;
    throw new AttachError(
      'no-connection',
      `/dev/${this.device} has no connection to its server; try again when it is back, or --force to lose what was not written yet`,
    );
  }

  #isConnected(): boolean {
    return (this.#supervisor?.status().state ?? 'connected') === 'connected';
  }

  /** As #flush, for a device that is to go whatever becomes of that: answers false once its server takes nothing any more. */
  async #flushWhileTaken(): Promise<boolean> {
    const flushing = this.#flush().catch(() => {});
    const standstill = new Standstill(this.device);
    while ((await within(flushing, LOOK_MS)) === 'late') {
      if (standstill.look() > STUCK_MS) return false;
    }
    return true;
  }

  /** @throws AttachError 'lost' from the first write on that the server did not take, 'time-limit' */
  async #flush(): Promise<void> {
    const end = await flushDevice(this.device, FLUSH_LIMIT_MS);
    if (end.kind === 'lost') this.#lostWrites ??= end.why;
    if (this.#lostWrites !== undefined) {
      const lost = `the server did not take all that was written to /dev/${this.device}`;
      throw new AttachError(
        'lost',
        `${lost} (${this.#lostWrites}); tsnbd -d --force detaches it, and what was lost stays lost`,
      );
    }
    if (end.kind === 'unfinished') {
      const late = `what was written to /dev/${this.device} could not be flushed`;
      throw new AttachError('time-limit', `${late}: ${end.why}; try again, or lose it with tsnbd -d --force`);
    }
  }
}
