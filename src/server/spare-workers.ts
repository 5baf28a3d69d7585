import { Worker } from 'node:worker_threads';
import { messageOf } from '../base/message-of.js';
import { ServerError } from './errors.js';

/** As many connections as copying clients open at once (nbdcopy, qemu-img: 4). A thread that waits takes 7.5 MiB. */
const SPARES_MAX = 4;
/** A server that has just started, and a client that has just come, have the processors for themselves first. */
const FILL_MS = 1_000;

/**
 * Starts a worker, which waits for its task. Node knows only of fds that node:fs opened, and would warn of others.
 *
 * @throws ServerError 'system' where the system gives no thread
 */
export function startWorker(): Worker {
  try {
    return new Worker(new URL('./worker.js', import.meta.url), { trackUnmanagedFds: false });
  } catch (cause) {
    const why = messageOf(cause);
    throw new ServerError('system', `no thread can be started: ${why}`, { cause });
  }
}

/** A worker that was started before it is needed, and does not keep the process from its end. */
export class SpareWorker {
  #worker: Worker | undefined = startWorker();

  constructor() {
    this.#worker?.unref();
  }

  /** Once that one; then a new one. */
  take(): Worker {
    const worker = this.#worker ?? startWorker();
    this.#worker = undefined;
    worker.ref();
    return worker;
  }

  /** It is not needed any more, unless it was taken. */
  close(): void {
    void this.#worker?.terminate();
  }
}

interface Spare {
  readonly worker: Worker;
  readonly onGone: () => void;
}

/**
 * Workers that were started before their clients come, or have served one: to start a thread takes as long as thousands of requests,
 * and its code is slow at first. They hold up neither the process nor its end.
 */
export class SpareWorkers {
  /** Those behind the others served last. */
  #spares: Spare[] = [];
  readonly #room: () => number;
  #filling: NodeJS.Timeout | undefined;
  #closed = false;

  /** `room` tells how many clients may still come. */
  constructor(room: () => number) {
    this.#room = room;
  }

  /** Starts those that are missing when nobody has come for a while; again and again until the system gives them. */
  fillSoon(): void {
    if (this.#filling === undefined) this.#filling = setTimeout(() => this.#fill(), FILL_MS).unref();
    else this.#filling.refresh();
  }

  /** A worker for a client; another takes its place later. @throws ServerError 'system' as startWorker does */
  take(): Worker {
    this.fillSoon();
    const spare = this.#spares.pop();
    if (spare === undefined) return startWorker();
    const { worker, onGone } = spare;
    worker.off('error', onGone).off('exit', onGone).ref();
    return worker;
  }

  /** A worker whose client has gone; it serves the next, rather than one that never did, or ends. */
  give(worker: Worker): void {
    if (worker.threadId < 0) return; // it has ended
    this.#spares.push(this.#spareOf(worker));
    // Each is listened to until it has ended: it may have broken already.
    for (const spare of this.#spares.splice(0, this.#spares.length - this.#wanted)) void spare.worker.terminate();
  }

  close(): void {
    this.#closed = true;
    for (const { worker } of this.#spares) void worker.terminate();
    this.#spares = [];
  }

  #fill(): void {
    this.#filling = undefined;
    try {
      while (this.#spares.length < this.#wanted) this.#spares.unshift(this.#spareOf(startWorker()));
    } catch {
      this.fillSoon(); // a client that comes meanwhile is told
    }
  }

  get #wanted(): number {
    return this.#closed ? 0 : Math.min(this.#room(), SPARES_MAX);
  }

  #spareOf(worker: Worker): Spare {
    worker.unref();
    const onGone = () => {
      this.#spares = this.#spares.filter((spare) => spare.worker !== worker);
    };
    worker.on('error', onGone).on('exit', onGone);
    return { worker, onGone };
  }
}
