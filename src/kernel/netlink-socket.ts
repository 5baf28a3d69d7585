import { closeSync, readSync, write } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { callInThread } from './call-thread.js';
import { errnoText } from './errno.js';
import { expect, KernelError, systemError, threadError } from './errors.js';
import { libc } from './libc.js';
import { SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './libc-abi.js';
import {
  AF_NETLINK,
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GENERIC,
  NLM_F_ACK,
  NLM_F_REQUEST,
  SOL_NETLINK,
  STRUCT_SOCKADDR_NL,
} from './netlink-abi.js';
import { encodeRequest, type GenericRequest, type NetlinkAnswer, parseAnswers } from './netlink-codec.js';
import { within } from './within.js';

const { EAGAIN, ECANCELED, EINTR } = constants.errno;

/** Longer than any answer to what we ask. */
const datagramBytesMax = 32_768;
/** Datagrams that an answer may consist of; the kernel gives a message and an acknowledgement. */
const datagramsMax = 16;
const pollMs = 5;

/**
 * The last write of this process. While somebody holds the lock, one waits for it, in one of the few threads that Node does
 * files and names with; the others wait for that one.
 */
let lastWrite: Promise<unknown> = Promise.resolve();

export type Question = Pick<GenericRequest, 'family' | 'command' | 'version' | 'attributes'>;

/** What the kernel said to one question. */
export interface NetlinkReply {
  /** Positive; 0 is a success. */
  readonly errno: number;
  /** The kernel's own words about a failure; '' if it has none. */
  readonly text: string;
  /** The attributes of its message; absent if there was none. */
  readonly attributes: ReadonlyMap<number, Uint8Array> | undefined;
}

/** Why the kernel refused, in its own words where it has some. */
export function describeReply({ errno, text }: NetlinkReply): string {
  return text === '' ? errnoText(errno) : `${text}: ${errnoText(errno)}`;
}

/**
 * A socket of generic netlink: one question at a time, and its whole answer. The kernel does what it is asked within
 * write(2) and answers before that returns; and all of generic netlink is behind one lock, which somebody's disconnect can
 * hold for long (native-notes/nbd-netlink.md). So no question is written on the main thread.
 */
export class NetlinkSocket {
  readonly #fd: number;
  #sequence = 0;
  /** Under way, maybe given up: until it is done nobody may close the fd. */
  #writing: Promise<number> | undefined;

  /** @throws KernelError 'system' where the process may not have such a socket */
  constructor() {
    const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK;
    this.#fd = expect('open a netlink socket', libc.socket(AF_NETLINK, type, NETLINK_GENERIC));
    try {
      for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK]) {
        // Where the kernel has no such option its answers are longer, or say less.
        libc.setsockopt(this.#fd, SOL_NETLINK, option, Uint8Array.of(1, 0, 0, 0));
      }
      // To the kernel, whose port is 0: a connected socket takes no messages of other processes (netlink_getsockbyportid).
      const kernel = new Uint8Array(STRUCT_SOCKADDR_NL.sizeof);
      new DataView(kernel.buffer).setUint16(STRUCT_SOCKADDR_NL.nl_family, AF_NETLINK, true);
      expect('connect a netlink socket', libc.connect(this.#fd, kernel));
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /**
   * What is given up may come to be done all the same: for what may be asked twice.
   *
   * @throws KernelError 'time-limit' when the kernel does not come to answer, 'system'
   */
  async ask(question: Question, limitMs: number): Promise<NetlinkReply> {
    const late = new AbortController();
    try {
      return await this.#exchange(question, async (bytes) => {
        const written = await within(this.#write(bytes, late.signal), limitMs);
        if (written !== 'late') return written;
        throw new KernelError(
          'time-limit',
          `the kernel did not answer by netlink in ${limitMs / 1000} s: another program waits in it`,
        );
      });
    } finally {
      late.abort();
    }
  }

  /** Waits for the lock as long as that takes: for what must not be asked twice. @throws KernelError 'system' */
  askOnce(question: Question): Promise<NetlinkReply> {
    return this.#exchange(question, (bytes) => this.#write(bytes));
  }

  /**
   * Asks what may wait for a server, from a thread of its own: see do-it-thread.ts. There is no time limit; whoever wants
   * one begins it when `onBegin` is called, for a thread takes its time to start.
   */
  askInThread(question: Question, onBegin: () => void = () => {}): Promise<NetlinkReply> {
    return this.#exchange(question, async (bytes) => {
      const { result, cause } = await callInThread(this.#fd, { kind: 'write', bytes }, onBegin);
      if (cause !== undefined) throw threadError('a thread of netlink', cause);
      return result;
    });
  }

  close(): void {
    if (this.#writing === undefined) closeSync(this.#fd);
    else void this.#writing.then(() => closeSync(this.#fd));
  }

  async #exchange(question: Question, send: (bytes: Uint8Array) => Promise<number>): Promise<NetlinkReply> {
    this.#sequence += 1;
    const sequence = this.#sequence;
    const result = await send(encodeRequest({ ...question, flags: NLM_F_REQUEST | NLM_F_ACK, sequence }));
    if (result < 0) throw systemError('write to a netlink socket', -result);
    let attributes: ReadonlyMap<number, Uint8Array> | undefined;
    for (let count = 0; count < datagramsMax; count += 1) {
      for (const answer of await this.#receive()) {
        if (answer.sequence !== sequence) continue; // to a question that was given up
        if (answer.kind === 'ack') return { errno: answer.errno, text: answer.text, attributes };
        attributes = answer.attributes;
      }
    }
    throw new KernelError('system', 'the kernel does not end its answer by netlink');
  }

  /** Behind the writes before it; one that was given up by then is not made. */
  #write(bytes: Uint8Array, late?: AbortSignal): Promise<number> {
    const written = lastWrite.then(() => (late?.aborted ? -ECANCELED : this.#writeNow(bytes)));
    lastWrite = written;
    this.#writing = written;
    void written.then(() => {
      if (this.#writing === written) this.#writing = undefined;
    });
    return written;
  }

  #writeNow(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve) => {
      write(this.#fd, bytes, (error, count) => resolve(error === null ? count : (error.errno ?? -1)));
    });
  }

  /** The answer is there when the question is written; a kernel that has none after a second never will. */
  async #receive(): Promise<readonly NetlinkAnswer[]> {
    const buffer = new Uint8Array(datagramBytesMax);
    for (const end = performance.now() + 1_000; ; await sleep(pollMs)) {
      const count = this.#read(buffer);
      if (count >= 0) {
        if (count === buffer.length) throw new KernelError('system', 'an answer by netlink is too long');
        return parseAnswers(buffer.subarray(0, count));
      }
      if (count !== -EAGAIN && count !== -EINTR) throw systemError('read from a netlink socket', -count);
      if (performance.now() > end) throw new KernelError('time-limit', 'the kernel does not answer by netlink');
    }
  }

  #read(buffer: Uint8Array): number {
    try {
      return readSync(this.#fd, buffer);
    } catch (error) {
      return (error as NodeJS.ErrnoException).errno ?? -1;
    }
  }
}
