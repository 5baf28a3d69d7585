import type { Socket } from 'node:net';
import type { ServerReply, TransmissionTerms } from '../protocol/awaited-reply.js';
import { type ClientRequest, ClientTransmission } from '../protocol/client-transmission.js';
import { NBD_CMD_DISC } from '../protocol/constants.js';
import { ProtocolError } from '../protocol/errors.js';
import { readOn } from './detach-fd.js';
import { TransportError } from './errors.js';

interface Waiting {
  readonly resolve: (reply: ServerReply) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Our client's transmission over a socket whose handshake `runHandshake` has led. The socket stays the caller's until
 * `leave`. At the first thing that the server does wrong, every reply that is awaited fails, and every later one.
 */
export class TransmissionSocket {
  readonly #socket: Socket;
  readonly #machine: ClientTransmission;
  readonly #waiting = new Map<number, Waiting>();
  #failure: Error | undefined;

  constructor(socket: Socket, terms: TransmissionTerms) {
    this.#socket = socket;
    this.#machine = new ClientTransmission(terms);
    socket.on('readable', this.#onReadable).on('end', this.#onEnd).on('close', this.#onEnd).on('error', nothing);
    if (socket.destroyed) this.#onEnd();
    else readOn(socket);
  }

  /**
   * Sends a request and answers its reply, be it an error.
   *
   * @throws ProtocolError when the server does something wrong or ends the connection; TransportError 'time-limit' when it
   * does not answer within `limitMs`, after which the connection is of no use
   */
  ask(request: ClientRequest, limitMs: number): Promise<ServerReply> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) throw this.#failure;
      const timer = setTimeout(() => this.#fail(tooLate()), limitMs);
      const { number, bytes } = this.#machine.encode(request);
      this.#waiting.set(number, {
        resolve: (reply) => {
          clearTimeout(timer);
          resolve(reply);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#socket.write(bytes);
    });
  }

  /** Takes leave (NBD_CMD_DISC) and closes the socket once that is sent; does not wait for it. */
  leave(): void {
    this.#forget();
    this.#socket.end(this.#machine.encode({ type: NBD_CMD_DISC }).bytes);
    this.#socket.destroySoon();
  }

  readonly #onReadable = () => {
    const piece: Uint8Array | null = this.#socket.read();
    if (piece === null) return;
    const { replies, failure } = this.#machine.receive(piece);
    for (const { number, reply } of replies) {
      const waiting = this.#waiting.get(number);
      this.#waiting.delete(number);
      waiting?.resolve(reply);
    }
    if (failure !== undefined) this.#fail(failure);
  };

  readonly #onEnd = () => {
    const failure = this.#machine.end();
    this.#fail(failure ?? new ProtocolError('closed', 'the server closed the connection'));
  };

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#forget();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(this.#failure);
  }

  #forget(): void {
    this.#socket.off('readable', this.#onReadable).off('end', this.#onEnd).off('close', this.#onEnd);
  }
}

function tooLate(): TransportError {
  return new TransportError('time-limit', 'the server does not answer a request within the time limit');
}

/** An 'error' is followed by 'close', which is listened to; without a listener it would end the process. */
const nothing = () => {};
