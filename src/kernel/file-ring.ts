import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { invariant } from '../base/invariant.js';
import { libc, mapShared } from './libc.js';
import {
  IORING_ENTER_GETEVENTS,
  IORING_FEAT_SINGLE_MMAP,
  IORING_FSYNC_DATASYNC,
  IORING_OFF_SQ_RING,
  IORING_OFF_SQES,
  IORING_OP_FSYNC,
  IORING_OP_READ,
  IORING_OP_WRITE,
  STRUCT_IO_URING_CQE,
  STRUCT_IO_URING_PARAMS,
  STRUCT_IO_URING_SQE,
} from './libc-abi.js';
import { setU64 } from './memory.js';

const { EAGAIN, EBUSY, EINTR } = constants.errno;
/** A signal, or a kernel short of memory, may interrupt; one that never lets us through is an error. */
const TRIES_MAX = 1_000;
/** Of an Int32 in the rings. */
const FIELD_BYTES = 4;

/**
 * Reads, writes and syncs of files that the kernel does at the same time, in whatever order: io_uring(7). One system call hands
 * over many and waits; what is done is seen in shared memory without any. Belongs to one thread.
 */
export class FileRing {
  /** Calls that may be on their way at a time: a power of two. */
  readonly entries: number;
  readonly #fd: number;
  readonly #rings: Uint8Array;
  readonly #fields: Int32Array;
  readonly #ringsView: DataView;
  readonly #sqes: Uint8Array;
  readonly #sqesView: DataView;
  readonly #sqTail: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqesAt: number;
  readonly #cqEntries: number;
  #added = 0;

  private constructor(fd: number, params: DataView, rings: Uint8Array, sqes: Uint8Array) {
    const field = (name: keyof typeof STRUCT_IO_URING_PARAMS) => params.getUint32(STRUCT_IO_URING_PARAMS[name], true);
    this.#fd = fd;
    this.entries = field('sq_entries');
    this.#rings = rings;
    this.#fields = new Int32Array(rings.buffer, rings.byteOffset, rings.length / FIELD_BYTES);
    this.#ringsView = new DataView(rings.buffer, rings.byteOffset, rings.length);
    this.#sqes = sqes;
    this.#sqesView = new DataView(sqes.buffer, sqes.byteOffset, sqes.length);
    this.#sqTail = field('sq_off.tail') / FIELD_BYTES;
    this.#cqHead = field('cq_off.head') / FIELD_BYTES;
    this.#cqTail = field('cq_off.tail') / FIELD_BYTES;
    this.#cqesAt = field('cq_off.cqes');
    this.#cqEntries = field('cq_entries');
    const array = field('sq_off.array') / FIELD_BYTES;
    for (let entry = 0; entry < this.entries; entry += 1) this.#fields[array + entry] = entry;
  }

  /** Absent where the kernel has no io_uring, or does not let us. */
  static open(entries: number): FileRing | undefined {
    const bytes = new Uint8Array(STRUCT_IO_URING_PARAMS.sizeof);
    const fd = libc.ioUringSetup(entries, bytes);
    if (fd < 0) return undefined;
    const ring = mapRing(fd, new DataView(bytes.buffer));
    if (ring === undefined) closeSync(fd);
    return ring === undefined ? undefined : new FileRing(fd, new DataView(bytes.buffer), ring.rings, ring.sqes);
  }

  /**
   * Adds a read of `length` bytes at `offsetBytes` of a file into memory at `address`, which stays there until it is done;
   * `tag` is told then, an integer of 32 bits. At most `entries` may be on their way.
   */
  read(fileFd: number, offsetBytes: number, length: number, address: number, tag: number): void {
    this.#add(IORING_OP_READ, fileFd, offsetBytes, length, address, 0, tag);
  }

  /** Adds a write from memory at `address`, which stays as it is until it is done; else as `read`. */
  write(fileFd: number, offsetBytes: number, length: number, address: number, tag: number): void {
    this.#add(IORING_OP_WRITE, fileFd, offsetBytes, length, address, 0, tag);
  }

  /** Adds an fdatasync(2) of a file, of what was written before it is handed over; `tag` as in `read`. */
  sync(fileFd: number, tag: number): void {
    this.#add(IORING_OP_FSYNC, fileFd, 0, 0, 0, IORING_FSYNC_DATASYNC, tag);
  }

  /** Hands over what was added, and waits until `waitFor` calls are done. Answers 0 or −errno. */
  submit(waitFor: number): number {
    for (let tries = 0; ; tries += 1) {
      const taken = libc.ioUringEnter(this.#fd, this.#added, waitFor, waitFor > 0 ? IORING_ENTER_GETEVENTS : 0);
      if ((taken === -EINTR || taken === -EAGAIN || taken === -EBUSY) && tries < TRIES_MAX) continue;
      if (taken < 0) return taken;
      this.#added -= taken;
      if (this.#added === 0 || taken === 0) return 0;
    }
  }

  /** For poll(2): readable while a call is done that was not taken yet. */
  get readableFd(): number {
    return this.#fd;
  }

  /** Whether a call is done that was not taken yet. */
  get isDone(): boolean {
    return Atomics.load(this.#fields, this.#cqTail) !== this.#fields[this.#cqHead];
  }

  /** Calls `done` with the tag, and the bytes moved or −errno, of each call that is done, or of so many. */
  take(done: (tag: number, result: number) => void, most = this.#cqEntries): void {
    const { user_data, res, sizeof } = STRUCT_IO_URING_CQE;
    let head = this.#fields[this.#cqHead] ?? 0;
    const tail = Atomics.load(this.#fields, this.#cqTail);
    for (let left = most; head !== tail && left > 0; left -= 1) {
      const at = this.#cqesAt + (head & (this.#cqEntries - 1)) * sizeof;
      done(this.#ringsView.getUint32(at + user_data, true), this.#ringsView.getInt32(at + res, true));
      head = (head + 1) | 0; // the kernel's counter wraps around
    }
    Atomics.store(this.#fields, this.#cqHead, head);
  }

  /** Nothing may be on its way any more. */
  close(): void {
    invariant(this.#added === 0, 'a ring is closed when nothing waits in it');
    closeSync(this.#fd);
    libc.munmap(this.#rings);
    libc.munmap(this.#sqes);
  }

  #add(
    operation: number,
    fileFd: number,
    offsetBytes: number,
    length: number,
    address: number,
    flags: number,
    tag: number,
  ): void {
    const { opcode, fd, off, addr, len, fsync_flags, user_data, sizeof } = STRUCT_IO_URING_SQE;
    const tail = this.#fields[this.#sqTail] ?? 0;
    const at = (tail & (this.entries - 1)) * sizeof;
    const view = this.#sqesView;
    view.setUint8(at + opcode, operation);
    view.setInt32(at + fd, fileFd, true);
    setU64(view, at + off, offsetBytes);
    setU64(view, at + addr, address);
    view.setUint32(at + len, length, true);
    view.setUint32(at + fsync_flags, flags, true);
    view.setUint32(at + user_data, tag, true);
    Atomics.store(this.#fields, this.#sqTail, tail + 1);
    this.#added += 1;
  }
}

/** Both rings lie in one piece of memory since Linux 5.4. */
function mapRing(fd: number, params: DataView): { readonly rings: Uint8Array; readonly sqes: Uint8Array } | undefined {
  const { features, sq_entries, cq_entries, 'sq_off.array': array, 'cq_off.cqes': cqes } = STRUCT_IO_URING_PARAMS;
  const field = (offset: number) => params.getUint32(offset, true);
  if ((field(features) & IORING_FEAT_SINGLE_MMAP) === 0) return undefined;
  const sqEnd = field(array) + field(sq_entries) * FIELD_BYTES;
  const cqEnd = field(cqes) + field(cq_entries) * STRUCT_IO_URING_CQE.sizeof;
  const rings = mapShared(fd, Math.max(sqEnd, cqEnd), IORING_OFF_SQ_RING);
  if (typeof rings === 'number') return undefined;
  const entries = mapShared(fd, field(sq_entries) * STRUCT_IO_URING_SQE.sizeof, IORING_OFF_SQES);
  if (typeof entries !== 'number') return { rings, sqes: entries };
  libc.munmap(rings);
  return undefined;
}
