import type { Socket } from 'node:net';
import { stopReading } from './detach-fd.js';
import { deadlineError, TransportError } from './errors.js';

/** What is driven here: either side's handshake of the protocol room. */
export interface HandshakeMachine<Outcome> {
  /** What to say first, on the side that does. */
  start?(): Uint8Array;
  receive(piece: Uint8Array): { readonly send: Uint8Array; readonly outcome?: Outcome };
  /** The other side has closed the connection. */
  end(): Outcome;
}

/** Answers that the other side leaves unread; a server's machine gives fewer to a client that reads. */
const UNSENT_BYTES_MAX = 1_048_576;

/**
 * Lets `machine` talk over `socket` until it has an outcome and all it said is sent. Not a byte is read from then on, so
 * that the socket can be given up (detach-fd). The socket stays the caller's, after an error too.
 *
 * @throws TransportError 'time-limit' or 'interrupted' at the deadline, 'closed' when the other side does not read
 */
export function runHandshake<Outcome>(
  socket: Socket,
  machine: HandshakeMachine<Outcome>,
  deadline: AbortSignal,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    new Conversation(socket, machine, deadline, resolve, reject).begin();
  });
}

class Conversation<Outcome> {
  readonly #socket: Socket;
  readonly #machine: HandshakeMachine<Outcome>;
  readonly #deadline: AbortSignal;
  readonly #resolve: (outcome: Outcome) => void;
  readonly #reject: (error: unknown) => void;
  #unsentPieces = 0;
  #receivedBytes = 0;
  #outcome: { readonly value: Outcome } | undefined;

  constructor(
    socket: Socket,
    machine: HandshakeMachine<Outcome>,
    deadline: AbortSignal,
    resolve: (outcome: Outcome) => void,
    reject: (error: unknown) => void,
  ) {
    this.#socket = socket;
    this.#machine = machine;
    this.#deadline = deadline;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(): void {
    this.#deadline.addEventListener('abort', this.#onDeadline);
    this.#socket.on('readable', this.#onReadable).on('end', this.#onEnd).on('close', this.#onEnd).on('error', nothing);
    if (this.#deadline.aborted) this.#onDeadline();
    else if (this.#socket.destroyed) this.#onEnd();
    else this.#guarded(() => this.#send(this.#machine.start?.() ?? NOTHING));
  }

  /** Takes all that Node holds at once, so that nothing of it is left behind at an outcome. */
  readonly #onReadable = () => {
    const piece: Uint8Array | null = this.#socket.read();
    if (piece === null || this.#outcome !== undefined) return;
    this.#receivedBytes += piece.length;
    this.#guarded(() => {
      const { send, outcome } = this.#machine.receive(piece);
      if (outcome !== undefined) {
        this.#outcome = { value: outcome };
        stopReading(this.#socket);
      }
      this.#send(send);
      this.#settleIfDone();
    });
  };

  /** A reset is an end like any other: servers that have no better way to refuse close with bytes unread. */
  readonly #onEnd = () => {
    this.#guarded(() => {
      this.#outcome ??= { value: this.#machine.end() };
      this.#unsentPieces = 0;
      this.#settleIfDone();
    });
  };

  readonly #onDeadline = () => {
    const doing = this.#receivedBytes === 0 ? 'begin the negotiation' : 'finish the negotiation';
    this.#fail(deadlineError(this.#deadline, doing));
  };

  #send(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#unsentPieces += 1;
    this.#socket.write(bytes, () => {
      this.#unsentPieces -= 1;
      this.#settleIfDone();
    });
    if (this.#socket.writableLength > UNSENT_BYTES_MAX) {
      this.#fail(new TransportError('closed', 'the other side asks and asks, and does not read the answers'));
    }
  }

  #settleIfDone(): void {
    if (this.#outcome === undefined || this.#unsentPieces > 0) return;
    this.#leave();
    this.#resolve(this.#outcome.value);
  }

  #guarded(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#leave();
    this.#reject(error);
  }

  #leave(): void {
    this.#deadline.removeEventListener('abort', this.#onDeadline);
    this.#socket.off('readable', this.#onReadable).off('end', this.#onEnd).off('close', this.#onEnd);
  }
}

const NOTHING = new Uint8Array(0);
/** An 'error' is followed by 'close', which is listened to; without a listener it would end the process. */
const nothing = () => {};
