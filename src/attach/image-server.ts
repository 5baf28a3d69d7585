import { closeSync } from 'node:fs';
import type { Worker } from 'node:worker_threads';
import type { OpenedImage } from '../image/open-image.js';
import { errnoText } from '../kernel/errno.js';
import { socketPair } from '../kernel/fd-calls.js';
import { within } from '../kernel/within.js';
import { imageFlags, rulesOf } from '../server/exports.js';
import { flushImage } from '../server/flush-image.js';
import { SpareWorker } from '../server/spare-workers.js';
import { type ConnectionEnd, type ServedConnection, startConnection } from '../server/workers.js';
import { AttachError } from './errors.js';

/** A worker in a call to a disk that does not answer cannot be ended; the rest of the undo does not wait for it. */
const WORKER_LIMIT_MS = 30_000;

/** The fds of a pair of sockets. */
export interface SocketEnds {
  readonly kernelEnd: number;
  readonly serverEnd: number;
}

/** A worker serves an image at one end of a socket pair; the other is for the kernel. Both ends are ours. */
export class ImageServer {
  readonly ends: SocketEnds;
  /** Resolves when no worker serves the image any more, and none will. */
  readonly ended: Promise<ConnectionEnd>;
  readonly #image: OpenedImage;
  readonly #onEnded: (end: ConnectionEnd) => void;
  /** Absent while it is halted, and at the end. */
  #connection: ServedConnection | undefined;
  /** Goes on where it was halted, also if no thread is to be had by then: the device waits for it. */
  #spare: SpareWorker | undefined;
  /** Of the connections before this one. */
  #writeErrorsBefore: number;
  #isToRest = false;
  #end: ConnectionEnd | undefined;

  /** Halted, at `ends`, where another process has served until now and failed `writeErrors` writes, or on a new pair. */
  constructor(image: OpenedImage, ends = newEnds(), writeErrors = 0) {
    this.#image = image;
    this.ends = ends;
    this.#writeErrorsBefore = writeErrors;
    let onEnded: (end: ConnectionEnd) => void = () => {};
    this.ended = new Promise<ConnectionEnd>((resolve) => {
      onEnded = resolve;
    });
    this.#onEnded = onEnded;
  }

  /**
   * Serves what is halted, and nobody else serves; by a worker that waits, if given.
   *
   * @throws ServerError 'system' where no thread can be started; not behind a halt
   */
  goOn(worker?: Worker): void {
    this.#isToRest = false;
    if (this.#connection === undefined && this.#end === undefined) this.#serve(worker);
  }

  /**
   * Ends the worker between two requests, with all that was written in the files of the image, so that another process can
   * go on. When it throws, the image is served as before.
   *
   * @throws AttachError 'lost' or 'time-limit'; ServerError 'system' where no thread can be started; ImageError
   */
  async halt(limitMs: number): Promise<void> {
    // Most of it is written while requests are still done.
    refuseLost(await flushImage(this.#image.handle));
    const connection = this.#connection;
    if (connection === undefined) throw hasEnded();
    this.#spare ??= new SpareWorker();
    this.#isToRest = true;
    connection.halt();
    const end = await within(connection.ended, limitMs);
    if (end === 'late') {
      this.#isToRest = false;
      connection.goOn();
      throw new AttachError('time-limit', `the disk of the image has not answered in ${limitMs / 1_000} s`);
    }
    if (!isHalted(end)) throw hasEnded();
    try {
      refuseLost(end.errno);
      this.#image.settle();
    } catch (error) {
      this.goOn();
      throw error;
    }
  }

  /** How many writes and flushes were answered with an error. */
  writeErrors(): number {
    return this.#writeErrorsBefore + (this.#connection?.writeErrors() ?? 0);
  }

  /** Cuts the connection, and closes both ends once no worker uses them. @throws AttachError 'time-limit', ServerError */
  async stop(): Promise<void> {
    const { kernelEnd, serverEnd } = this.ends;
    const isHalted = this.#connection === undefined && this.#end === undefined;
    if (isHalted) closeSync(serverEnd);
    this.#spare?.close();
    this.#connection?.shutdown();
    const end = isHalted ? undefined : await within(this.ended, WORKER_LIMIT_MS);
    closeSync(kernelEnd);
    if (end === 'late') throw new AttachError('time-limit', 'the worker still waits for the disk of the image');
    if (end?.kind === 'failed') throw end.error;
  }

  #takeSpare(): Worker | undefined {
    const spare = this.#spare;
    this.#spare = undefined;
    return spare?.take();
  }

  #serve(worker = this.#takeSpare()): void {
    const image = this.#image;
    const rules = rulesOf(image, { flags: imageFlags(image, true), replyStyle: 'simple', statusContexts: 0 });
    const received = new Uint8Array(0);
    const start = {
      socketFd: this.ends.serverEnd,
      image: image.handle,
      rules,
      contexts: [],
      received,
      mayHalt: true,
      keepsMemory: true,
    } as const;
    const connection = startConnection(start, worker);
    this.#connection = connection;
    void connection.ended.then((end) => {
      this.#connection = undefined;
      this.#writeErrorsBefore += connection.writeErrors();
      if (isHalted(end)) {
        if (!this.#isToRest) this.#serve(); // it was given up, but halted all the same
        return;
      }
      this.#end = end;
      this.#onEnded(end);
    });
  }
}

function newEnds(): SocketEnds {
  const [kernelEnd, serverEnd] = socketPair();
  return { kernelEnd, serverEnd };
}

function isHalted(end: ConnectionEnd): end is Extract<ConnectionEnd, { how: 'halted' }> {
  return end.kind === 'left' && end.how === 'halted';
}

/** After that no write is answered as done any more, which another opening of the image would not know. */
function refuseLost(errno: number): void {
  if (errno === 0) return;
  const lost = `what was written to the image could not be brought to stable storage (${errnoText(errno)})`;
  throw new AttachError('lost', `${lost}; detach the device, and check what is on it`);
}

function hasEnded(): AttachError {
  return new AttachError('lost', 'the connection of the device has ended');
}
