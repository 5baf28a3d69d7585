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

/**
 * Workers that were started before their clients come: to start a thread takes as long as thousands of requests. They hold
 * up neither the process nor its end.
 */
export class SpareWorkers {
  readonly #spares = new Set<Worker>();
  readonly #room: () => number;
  #filling: NodeJS.Timeout | undefined;
  #closed = false;

  /** `room` tells how many clients may still come. */
  constructor(room: () => number) {
    this.#room = room;
  }

  /** Starts those that are missing, in a while; again and again until the system gives them. */
  fillSoon(): void {
    this.#filling ??= setTimeout(() => this.#fill(), FILL_MS).unref();
  }

  /** A worker for a client; another takes its place later. @throws ServerError 'system' as startWorker does */
  take(): Worker {
    this.fillSoon();
    const [spare] = this.#spares;
    if (spare === undefined) return startWorker();
    this.#spares.delete(spare);
    spare.ref();
    return spare;
  }

  close(): void {
    this.#closed = true;
    for (const worker of this.#spares) void worker.terminate();
    this.#spares.clear();
  }

  #fill(): void {
    this.#filling = undefined;
    const wanted = this.#closed ? 0 : Math.min(this.#room(), SPARES_MAX);
    try {
      while (this.#spares.size < wanted) this.#add(startWorker());
    } catch {
      this.fillSoon(); // a client that comes meanwhile is told
    }
  }

  #add(worker: Worker): void {
    worker.unref();
    const forget = () => this.#spares.delete(worker);
    worker.on('error', forget).on('exit', forget);
    this.#spares.add(worker);
  }
}
