import { Socket } from 'node:net';
import type { ClientRequest } from '#tsnbd/protocol/client-transmission.js';
import {
  NBD_CMD_READ,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
} from '#tsnbd/protocol/constants.js';
import { encodeRequest } from '#tsnbd/protocol/request.js';

export type AskedRequest = ClientRequest;

export interface Reply {
  readonly error: number;
  /** The cookie's lower half; the upper half is checked here. */
  readonly cookie: number;
  readonly data: Buffer;
}

const COOKIE_HIGH = 0xfeed_f00d;

/** A client that sends whatever a test wants, requests that break rules too, and takes simple replies apart. */
export class RawClient {
  readonly #socket: Socket;
  readonly #dataBytes = new Map<number, number>();
  #lastCookie = 0;
  #pieces: Buffer[] = [];
  #receivedBytes = 0;
  #wake: () => void = () => {};
  #over = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const end = () => {
      this.#over = true;
      this.#wake();
    };
    socket.on('error', end).on('end', end).on('close', end);
    socket.on('data', (piece) => {
      this.#pieces.push(piece);
      this.#receivedBytes += piece.length;
      this.#wake();
    });
  }

  static onFd(fd: number): RawClient {
    return new RawClient(new Socket({ fd, readable: true, writable: true }));
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** The bytes of a request, which counts as sent. */
  encode({ type, offsetBytes = 0, lengthBytes, flags = 0, data = new Uint8Array(0) }: AskedRequest): Buffer {
    this.#lastCookie += 1;
    const length = lengthBytes ?? data.length;
    if (type === NBD_CMD_READ) this.#dataBytes.set(this.#lastCookie, length);
    const bytes = Buffer.alloc(NBD_REQUEST_BYTES + data.length);
    const cookie = { cookieHigh: COOKIE_HIGH, cookieLow: this.#lastCookie };
    encodeRequest(new DataView(bytes.buffer, bytes.byteOffset), 0, {
      flags,
      type,
      ...cookie,
      offsetBytes,
      lengthBytes: length,
    });
    bytes.set(data, NBD_REQUEST_BYTES);
    return bytes;
  }

  /** Sends a request and waits for its reply, which must be the next. */
  async ask(request: AskedRequest): Promise<Reply> {
    this.send(this.encode(request));
    const reply = await this.reply();
    if (reply.cookie !== this.#lastCookie) throw new Error(`reply to ${reply.cookie} instead of ${this.#lastCookie}`);
    return reply;
  }

  async reply(): Promise<Reply> {
    const header = await this.read(NBD_SIMPLE_REPLY_BYTES);
    if (header.readUInt32BE(0) !== NBD_SIMPLE_REPLY_MAGIC) throw new Error('no reply where one should begin');
    if (header.readUInt32BE(8) !== COOKIE_HIGH) throw new Error('a reply to nobody');
    const [error, cookie] = [header.readUInt32BE(4), header.readUInt32BE(12)];
    const data = await this.read(error === 0 ? (this.#dataBytes.get(cookie) ?? 0) : 0);
    return { error, cookie, data };
  }

  /** Exactly so many bytes; throws when the server ends the connection before. */
  async read(length: number): Promise<Buffer> {
    while (this.#receivedBytes < length) {
      if (this.#over) throw new Error('the server has ended the connection');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if ((this.#pieces[0]?.length ?? 0) < length) this.#pieces = [Buffer.concat(this.#pieces)];
    const received = this.#pieces[0] ?? Buffer.alloc(0);
    this.#pieces[0] = received.subarray(length);
    this.#receivedBytes -= length;
    return received.subarray(0, length);
  }

  /** What has come and was not read yet, as soon as there is some; nothing when the server has ended the connection. */
  async piece(): Promise<Buffer | undefined> {
    while (this.#receivedBytes === 0) {
      if (this.#over) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.read(this.#receivedBytes);
  }

  /** Resolves with what came before it when the server ends the connection. */
  async end(): Promise<Buffer> {
    while (!this.#over) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return Buffer.concat(this.#pieces);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Says no more and goes on listening. */
  finish(): void {
    this.#socket.end();
  }

  close(): void {
    this.#socket.destroy();
  }
}
