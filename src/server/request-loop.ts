import { constants } from 'node:os';
import { invariant } from '../base/invariant.js';
import type { Image } from '../image/image.js';
import { sleepsOfThread } from '../kernel/thread-sleeps.js';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_ESHUTDOWN,
} from '../protocol/constants.js';
import type { MetaContext } from '../protocol/meta-context.js';
import { replyError } from '../protocol/reply.js';
import { emptyRequest, payloadBytes } from '../protocol/request.js';
import { checkRequest, type ExportRules, endsConnection } from '../protocol/request-rules.js';
import type { Busyness } from './activity.js';
import { BegunWrites } from './begun-writes.js';
import { Changes } from './changes.js';
import { ColdReads } from './cold-reads.js';
import { Flushes } from './flushes.js';
import { LargeWrites } from './large-writes.js';
import {
  afterFlush,
  CLOSED,
  DISCONNECTED,
  DRAIN,
  failed,
  GARBAGE,
  HALF_A_REQUEST,
  HALT,
  HALTED,
  type LoopEnd,
  lost,
  STOPPED,
} from './loop-end.js';
import { Ongoing } from './ongoing.js';
import { PacedSocket } from './paced-socket.js';
import { Reads } from './reads.js';
import { Replies } from './replies.js';
import { INPUT_BYTES, RequestInput } from './request-input.js';
import { StatusReplies } from './status-replies.js';
import { TimedReads } from './timed-reads.js';
import { whenIdle } from './when-idle.js';

const { EAGAIN } = constants.errno;

/** What one connection is made of. */
export interface Connection {
  /** Blocking; stays the caller's. */
  readonly socketFd: number;
  readonly image: Image;
  readonly rules: ExportRules;
  /** The metadata contexts that BLOCK_STATUS tells of. */
  readonly contexts: readonly MetaContext[];
  /** Requests that came with the handshake, at most INPUT_BYTES. */
  readonly received: Uint8Array;
  /** One field, SERVE, DRAIN or HALT (loop-end). The main thread writes it, the loop looks once a batch. */
  readonly stop: Int32Array;
  readonly bellFd: number; // readable when an idle loop is to look at `stop`; with one the client is the kernel; below 0: none
  readonly busyness: Busyness;
  readonly keepsMemory?: true; // see whenIdle
  readonly writeErrors: Int32Array; // see Replies
}

/**
 * Serves one connection to its end, on a thread of its own: takes as many requests as the socket holds, answers all of
 * them with one write, and waits in between. Nothing is thrown and nothing allocated for a request.
 */
export function serveRequests(connection: Connection): LoopEnd {
  const loop = new RequestLoop(connection);
  const end = loop.run();
  return afterFlush(end, loop.close());
}

class RequestLoop {
  readonly #image: Image;
  readonly #rules: ExportRules;
  readonly #stop: Int32Array;
  readonly #socket: PacedSocket;
  readonly #input: RequestInput;
  readonly #replies: Replies;
  readonly #reads: Reads;
  readonly #timedReads: TimedReads;
  readonly #changes: Changes;
  readonly #status: StatusReplies;
  /** Absent where the image does one write at a time. */
  readonly #begun: BegunWrites | undefined;
  readonly #flushes: Flushes;
  readonly #ongoing: Ongoing;
  readonly #largeWrites: LargeWrites;
  readonly #request = emptyRequest();
  /** Since bytes were received last. */
  #answered = 0;
  /** What is received from now on is answered with ESHUTDOWN. */
  #draining = false;

  constructor({ socketFd, image, rules, contexts, received, stop, busyness, ...more }: Connection) {
    invariant(received.length <= INPUT_BYTES, 'what came with the handshake fits into the input buffer');
    this.#image = image;
    this.#rules = rules;
    this.#stop = stop;
    this.#input = new RequestInput(rules.replyStyle, received);
    this.#replies = new Replies(socketFd, rules.replyStyle, more.writeErrors);
    const relax = whenIdle(more.keepsMemory, this.#input, this.#replies, [
      image,
      { relax: () => this.#timedReads.relax() },
    ]);
    this.#socket = new PacedSocket(socketFd, busyness, more.bellFd, () => {
      relax();
      return this.#isAsked(HALT) && !this.#largeWrites.isInOne; // its next request is not to be waited for
    });
    this.#reads = new Reads(socketFd, image, this.#replies, rules.replyStyle);
    this.#changes = new Changes(image, this.#input, this.#replies);
    this.#status = new StatusReplies(image, this.#replies, contexts);
    this.#begun = image.beginsWrites ? new BegunWrites(image, this.#replies) : undefined;
    if (this.#begun !== undefined) this.#socket.neverBlock();
    const cold = new ColdReads(image, rules, this.#input, this.#reads, sleepsOfThread);
    this.#timedReads = new TimedReads(image, this.#replies, this.#reads, cold, this.#input, this.#begun, () => {
      this.#ongoing.answerDoneChanges();
      this.#replies.send();
      this.#receiveWhatIsThere();
    });
    this.#flushes = new Flushes(image, this.#replies);
    this.#ongoing = new Ongoing(this.#timedReads, this.#begun, this.#flushes, this.#replies);
    this.#largeWrites = new LargeWrites(image, this.#input, this.#replies, this.#changes, this.#ongoing, (missing) =>
      this.#receiveMore(missing),
    );
  }

  run(): LoopEnd {
    for (;;) {
      const end = this.#answerWhatIsThere();
      this.#reads.sendTogether();
      this.#ongoing.answerDone();
      this.#replies.send();
      if (end !== undefined) return end;
      if (this.#replies.sendErrno !== 0) return lost(this.#replies.sendErrno);
      if (this.#isAsked(HALT) && this.#input.length === 0) return HALTED;
      this.#draining = this.#isAsked(DRAIN);
      const received = this.#receiveMore();
      if (received === -EAGAIN) continue;
      if (received < 0) return lost(-received);
      if (received === 0) return this.#endOfStream();
    }
  }

  /** Answers what is on its way; then 0, or why what was written could not be flushed. */
  close(): number {
    this.#ongoing.close();
    this.#replies.send();
    const errno = this.#changes.hasWritten ? this.#image.flush() : 0;
    this.#reads.untilTakenBack(() => this.#isAsked(DRAIN) || this.#socket.isCutOff);
    this.#reads.close();
    this.#socket.close();
    this.#input.start = this.#input.end;
    this.#input.relax();
    this.#replies.relax();
    return errno;
  }

  #isAsked(what: number): boolean {
    return Atomics.load(this.#stop, 0) === what;
  }

  /** Answers every request that is there as a whole, and one that never can be. */
  #answerWhatIsThere(): LoopEnd | undefined {
    const request = this.#request;
    const input = this.#input;
    const { replyStyle } = this.#rules;
    while (input.holdsHeader(input.start) && this.#replies.sendErrno === 0) {
      if (!input.decode(input.start, request)) return GARBAGE;
      if (request.type === NBD_CMD_DISC) return DISCONNECTED;
      const dataBytes = payloadBytes(request, replyStyle);
      const error = this.#draining ? NBD_ESHUTDOWN : checkRequest(request, this.#rules);
      if (endsConnection(request, replyStyle)) {
        this.#begun?.finish();
        this.#replies.reply(request, error);
        return failed('violation', `the client announced ${dataBytes} bytes of data with a request`);
      }
      const wholeBytes = input.headerBytes + dataBytes;
      if (wholeBytes > input.length && wholeBytes <= INPUT_BYTES) return undefined;
      input.start += input.headerBytes;
      this.#answered += 1;
      if (wholeBytes > INPUT_BYTES) {
        const received = this.#largeWrites.answer(request, error, dataBytes);
        if (received < 0) return lost(-received);
        if (received === 0) return this.#isAsked(DRAIN) ? STOPPED : HALF_A_REQUEST;
      } else {
        if (error !== 0 || !this.#begins()) this.#answer(error);
        input.start += dataBytes;
      }
    }
    return undefined;
  }

  /** Whether the request is a WRITE that is done beside others; its answer comes with theirs. */
  #begins(): boolean {
    if (this.#begun === undefined || this.#request.type !== NBD_CMD_WRITE) return false;
    // By itself a write takes longer in this way.
    if (this.#begun.isEmpty && this.#input.length === this.#request.lengthBytes) return false;
    this.#changes.hasWritten = true;
    this.#timedReads.before(this.#request);
    return this.#begun.begin(this.#request, this.#input.bytes, this.#input.start);
  }

  #answer(error: number): void {
    if (error !== 0) this.#replies.reply(this.#request, error);
    else if (this.#request.type === NBD_CMD_READ) this.#timedReads.answer(this.#request);
    else this.#other();
  }

  /** Any request but a READ; a WRITE's data begin at the input's start. */
  #other(): void {
    const request = this.#request;
    this.#ongoing.before(request);
    if (request.type === NBD_CMD_BLOCK_STATUS) this.#status.answer(request);
    else if (request.type === NBD_CMD_FLUSH) this.#flushes.answer(request);
    else this.#replies.reply(request, replyError(this.#changes.make(request), request));
  }

  /**
   * Moves the beginning of a request to the front and waits for more behind it; before a halt only for the rest of that
   * request, so that nothing of the next is read.
   */
  #receiveMore(missingBytes = this.#missingBytes()): number {
    const input = this.#input;
    input.makeRoom();
    const wanted = this.#isAsked(HALT) ? missingBytes : INPUT_BYTES;
    const received = this.#receiveBesideOthers(Math.min(wanted, INPUT_BYTES - input.end));
    this.#timedReads.received();
    if (received > 0) input.end += received;
    this.#reads.takeBack();
    return received;
  }

  #receiveBesideOthers(length: number): number {
    const { bytes, end } = this.#input;
    const meanwhile = this.#ongoing.receive(this.#socket, bytes, end, length);
    if (meanwhile !== -EAGAIN) return meanwhile;
    const received = this.#socket.receive(bytes, end, length, this.#answered);
    this.#answered = 0;
    return received;
  }

  /** Of the request that has begun to come, which was decoded if its header is there. */
  #missingBytes(): number {
    const { start, length, headerBytes } = this.#input;
    const isRead = this.#input.holdsHeader(start);
    return headerBytes - length + (isRead ? payloadBytes(this.#request, this.#rules.replyStyle) : 0);
  }

  /** The end of the stream, or an error, is told again by the next read that waits. */
  #receiveWhatIsThere(): void {
    const input = this.#input;
    input.makeRoom();
    if (input.end === INPUT_BYTES || this.#isAsked(HALT)) return;
    const received = this.#socket.receiveIfThere(input.bytes, input.end, INPUT_BYTES - input.end);
    if (received > 0) input.end += received;
  }

  #endOfStream(): LoopEnd {
    if (this.#isAsked(DRAIN)) return STOPPED;
    return this.#input.length === 0 ? CLOSED : HALF_A_REQUEST;
  }
}
