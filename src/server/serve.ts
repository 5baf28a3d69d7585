import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenedImage } from '../image/open-image.js';
import { exitNow } from '../kernel/fd-calls.js';
import { ServerHandshake, type ServerOutcome } from '../protocol/server-handshake.js';
import { type Address, addressInWords } from '../transport/address.js';
import { deadlineAfter } from '../transport/deadline.js';
import { detachFd } from '../transport/detach-fd.js';
import { runHandshake } from '../transport/handshake-socket.js';
import { type Listener, listen } from '../transport/listen.js';
import { ServerError } from './errors.js';
import { exportsOf, rulesOf } from './exports.js';
import type { OnServeEvent } from './serve-event.js';
import { type ServedConnection, startConnection } from './workers.js';

/** A client has so long to choose its export. */
const HANDSHAKE_LIMIT_MS = 10_000;
/** `stop` gives workers so long to answer what they have, and then, cut off, to finish their last call. */
const DRAIN_LIMIT_MS = 10_000;
const CUT_LIMIT_MS = 30_000;
const STUCK_STATUS = 1;

export interface ServeOptions {
  readonly address: Address;
  /** Stays the caller's, to be closed once the server has ended. */
  readonly image: OpenedImage;
  /** Clients served at a time; absent: no limit. */
  readonly clientsMax: number | undefined;
  /** Go on when the last client has left. */
  readonly persistent: boolean;
}

export interface Server {
  /** With the port that was taken where 0 was asked for. */
  readonly address: Address;
  /** Resolves when nobody listens any more and every worker is gone. */
  readonly ended: Promise<void>;
  /** Answers the requests that are there, flushes, closes; resolves with `ended`. A worker that is stuck ends the process. */
  stop(): Promise<void>;
}

/**
 * Serves an image to clients until `stop`, or, unless it is `persistent`, until the last client that finished its
 * handshake has left.
 *
 * @throws TransportError 'address' when it cannot listen
 */
export async function serve(options: ServeOptions, onEvent: OnServeEvent): Promise<Server> {
  const server = new ImageServer(options, onEvent);
  await server.listen();
  return server;
}

type Transmission = Extract<ServerOutcome, { kind: 'transmission' }>;

class ImageServer implements Server {
  readonly ended: Promise<void>;
  readonly #options: ServeOptions;
  readonly #onEvent: OnServeEvent;
  /** Aborted when nobody is listened to any more. */
  readonly #closing = new AbortController();
  readonly #served = new Set<ServedConnection>();
  #resolveEnded: () => void = () => {};
  #listener: Listener | undefined;
  #clients = 0;
  #hasServed = false;
  /** Sockets between accept and worker. */
  #handshakes = 0;

  constructor(options: ServeOptions, onEvent: OnServeEvent) {
    this.#options = options;
    this.#onEvent = onEvent;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get address(): Address {
    return this.#listener?.address ?? this.#options.address;
  }

  async listen(): Promise<void> {
    this.#listener = await listen(this.#options.address, {
      onConnection: (socket) => {
        void this.#welcome(socket);
      },
      onDropped: () => this.#onEvent({ kind: 'dropped' }),
    });
  }

  async stop(): Promise<void> {
    this.#close();
    for (const connection of this.#served) connection.drain();
    if (await this.#endedWithin(DRAIN_LIMIT_MS)) return;
    for (const connection of this.#served) connection.shutdown();
    if (await this.#endedWithin(CUT_LIMIT_MS)) return;
    this.#onEvent({ kind: 'stuck', clients: this.#served.size });
    exitNow(STUCK_STATUS);
  }

  /** From accept to worker; whatever goes wrong is this client's trouble only. */
  async #welcome(socket: Socket): Promise<void> {
    this.#clients += 1;
    const client = this.#clients;
    const from = nameOf(socket, this.address);
    this.#handshakes += 1;
    try {
      this.#refuseIfFull();
      const negotiated = await this.#negotiate(socket);
      this.#start(await detachFd(socket), negotiated, client, from);
    } catch (error) {
      this.#onEvent({ kind: 'not-served', client, from, error: asError(error) });
    } finally {
      socket.destroy();
      this.#handshakes -= 1;
      this.#endIfDone();
    }
  }

  async #negotiate(socket: Socket): Promise<Transmission> {
    const { image, clientsMax } = this.#options;
    const deadline = deadlineAfter(HANDSHAKE_LIMIT_MS, this.#closing.signal);
    const isClosing = () => this.#closing.signal.aborted;
    const handshake = new ServerHandshake(exportsOf(image, clientsMax), { isClosing });
    const outcome = await runHandshake(socket, handshake, deadline);
    if (outcome.kind === 'closed') throw outcome.reason;
    return outcome;
  }

  #start(socketFd: number, negotiated: Transmission, client: number, from: string): void {
    try {
      this.#refuseIfFull(); // others may have come meanwhile
    } catch (error) {
      closeSync(socketFd);
      throw error;
    }
    const { image } = this.#options;
    const { flags, replyStyle, contexts, received } = negotiated;
    const rules = rulesOf(image, { flags, replyStyle, statusContexts: contexts.length });
    const connection = startConnection({ socketFd, image: image.handle, rules, contexts, received });
    this.#served.add(connection);
    this.#hasServed = true;
    this.#onEvent({ kind: 'connected', client, from });
    void connection.ended.then((end) => {
      this.#served.delete(connection);
      this.#onEvent({ kind: 'ended', client, end });
      this.#endIfDone();
    });
  }

  #refuseIfFull(): void {
    if (this.#closing.signal.aborted) throw new ServerError('refused', 'the server is about to end');
    const { clientsMax } = this.#options;
    if (clientsMax === undefined || this.#served.size < clientsMax) return;
    const clients = clientsMax === 1 ? 'a client is' : `${clientsMax} clients are`;
    throw new ServerError('refused', `${clients} served already, no more are allowed`);
  }

  #endIfDone(): void {
    if (this.#served.size > 0 || this.#handshakes > 0) return;
    if (this.#hasServed && !this.#options.persistent) this.#close();
    if (this.#closing.signal.aborted) this.#resolveEnded();
  }

  #close(): void {
    if (this.#closing.signal.aborted) return;
    this.#listener?.close();
    this.#closing.abort();
    this.#endIfDone();
  }

  #endedWithin(limitMs: number): Promise<boolean> {
    const limit = sleep(limitMs, false, { ref: false });
    return Promise.race([this.ended.then(() => true), limit]);
  }
}

function nameOf(socket: Socket, address: Address): string {
  if (address.kind === 'unix' || socket.remoteAddress === undefined) return addressInWords(address);
  return addressInWords({ kind: 'tcp', host: socket.remoteAddress, port: socket.remotePort ?? 0 });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
