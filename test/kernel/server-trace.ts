import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_REQUEST_BYTES,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_BYTES,
} from '#tsnbd/protocol/constants.js';

/** What strace has to be told for a server whose trace is read here: a file a thread, and all bytes of every call. */
export const TRACE_OPTIONS =
  '-ff -qq -xx -s 2000000 -e trace=openat,read,write,pwrite64,fdatasync,fallocate,io_uring_setup,io_uring_enter';
/** And for one that is to have no io_uring. */
export const WITHOUT_RING = '-e inject=io_uring_setup:error=ENOSYS';

export interface Durability {
  readonly flushes: number;
  /** Of them those for which a sync was begun that went on beside other requests. */
  readonly begunFlushes: number;
  /** WRITEs with FUA. */
  readonly fuas: number;
  /** WRITEs without it. */
  readonly writes: number;
  /** Replies that came before what they promise was durable, a sentence each. */
  readonly early: readonly string[];
}

interface PendingRequest {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Which call of the thread brought it. */
  readonly knownAt: number;
  /** Of its data written by O_DSYNC. */
  durableBytes: number;
}

/**
 * Reads the trace of a worker: before the reply to each FLUSH there is an fdatasync that began after the request had come, or one
 * by io_uring that was handed over after that (no trace shows when it is done: held-disk.test.ts has it not be done),
 * before that to each WRITE with FUA one that began after the data were written, or they were written by O_DSYNC. With
 * `everyWrite` that is asked of all WRITEs. Errors promise nothing.
 */
export function durabilityOf(trace: string, everyWrite: boolean): Durability {
  const worker = new WorkerTrace(everyWrite);
  for (const line of trace.split('\n')) worker.hear(line);
  return worker;
}

/** Whether a thread's trace is that of a worker. */
export function isWorkerTrace(trace: string): boolean {
  return /^read\([0-9]+, "\\x25\\x60\\x95\\x13/m.test(trace);
}

class WorkerTrace implements Durability {
  flushes = 0;
  begunFlushes = 0;
  fuas = 0;
  writes = 0;
  readonly early: string[] = [];
  readonly #everyWrite: boolean;
  readonly #pending = new Map<string, PendingRequest>();
  readonly #durableFds = new Set<number>();
  #socket = -1;
  #input: Buffer = Buffer.alloc(0);
  #call = 0;
  #syncedAt = -1;
  /** The ring by which the one file of the image is synced; others are for more calls at a time. */
  #syncRing = -1;
  #beganSyncAt = -1;
  #writtenAt = -1;

  constructor(everyWrite: boolean) {
    this.#everyWrite = everyWrite;
  }

  hear(line: string): void {
    const [, name, given = '', result] = /^(\w+)\((.*)\) += (-?\d+)/.exec(line) ?? [];
    const returned = Number(result);
    if (name === undefined || returned < 0) return;
    this.#call += 1;
    const [fd = -1] = given.split(', ', 1).map(Number);
    if (name === 'openat' && given.includes('O_DSYNC')) this.#durableFds.add(returned);
    if (name === 'io_uring_setup' && given.startsWith('1, ')) this.#syncRing = returned;
    if (name === 'io_uring_enter' && fd === this.#syncRing && returned > 0) this.#beganSyncAt = this.#call;
    if (name === 'fdatasync') this.#syncedAt = this.#call;
    if (name === 'fallocate') this.#writtenAt = this.#call;
    if (name === 'pwrite64') this.#written(fd, Number(given.slice(given.lastIndexOf(',') + 1)), returned);
    if (name === 'read' && this.#isSocket(fd, given)) this.#received(bytesOf(given).subarray(0, returned));
    if (name === 'write' && fd === this.#socket) this.#answered(bytesOf(given).subarray(0, returned));
  }

  /** The first that brings a request. */
  #isSocket(fd: number, given: string): boolean {
    if (this.#socket < 0 && given.includes('"\\x25\\x60\\x95\\x13')) this.#socket = fd;
    return fd === this.#socket;
  }

  #received(bytes: Buffer): void {
    this.#input = Buffer.concat([this.#input, bytes]);
    while (this.#input.length >= NBD_REQUEST_BYTES) {
      const input = this.#input;
      if (input.readUInt32BE(0) !== NBD_REQUEST_MAGIC) throw new Error('the trace is not that of requests');
      const [flags, type, length] = [input.readUInt16BE(4), input.readUInt16BE(6), input.readUInt32BE(24)];
      const dataBytes = type === NBD_CMD_WRITE ? length : 0;
      if (input.length < NBD_REQUEST_BYTES + dataBytes) return;
      const offset = Number(input.readBigUInt64BE(16));
      const request = { type, flags, offset, length, knownAt: this.#call, durableBytes: 0 };
      this.#pending.set(input.toString('hex', 8, 16), request);
      this.#input = input.subarray(NBD_REQUEST_BYTES + dataBytes);
    }
  }

  #written(fd: number, offset: number, length: number): void {
    this.#writtenAt = this.#call;
    if (!this.#durableFds.has(fd)) return;
    for (const request of this.#pending.values()) {
      const within = offset >= request.offset && offset + length <= request.offset + request.length;
      if (request.type === NBD_CMD_WRITE && within) request.durableBytes += length;
    }
  }

  #answered(replies: Buffer): void {
    for (let at = 0; at + NBD_SIMPLE_REPLY_BYTES <= replies.length; at += NBD_SIMPLE_REPLY_BYTES) {
      const cookie = replies.toString('hex', at + 8, at + 16);
      const request = this.#pending.get(cookie);
      if (request === undefined) throw new Error(`a reply to no request: ${cookie}`);
      this.#pending.delete(cookie);
      if (replies.readUInt32BE(at + 4) === 0) this.#promised(request);
      // Data that come some other way, by splice, are not in the trace.
      if (request.type === NBD_CMD_READ) at += request.length;
    }
  }

  #promised({ type, flags, offset, length, knownAt, durableBytes }: PendingRequest): void {
    if (type === NBD_CMD_FLUSH) {
      this.flushes += 1;
      const isBegun = this.#beganSyncAt > knownAt;
      if (isBegun) this.begunFlushes += 1;
      if (this.#syncedAt < knownAt && !isBegun) this.early.push(`FLUSH ${this.flushes} was answered without a sync`);
    }
    if (type !== NBD_CMD_WRITE) return;
    const fua = (flags & NBD_CMD_FLAG_FUA) !== 0;
    if (fua) this.fuas += 1;
    else this.writes += 1;
    if (!fua && !this.#everyWrite) return;
    const isDurable = durableBytes === length || this.#syncedAt > Math.max(this.#writtenAt, knownAt);
    if (!isDurable) this.early.push(`a WRITE of ${length} at ${offset}${fua ? ' with FUA' : ''} was answered before`);
  }
}

function bytesOf(given: string): Buffer {
  const text = given.slice(given.indexOf('"') + 1, given.lastIndexOf('"'));
  return Buffer.from(text.replaceAll('\\x', ''), 'hex');
}
