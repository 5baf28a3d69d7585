import { randomFillSync } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Image } from '#tsnbd/image/image.js';
import { socketPair } from '#tsnbd/kernel/fd-calls.js';
import { fileIntoPipe } from '#tsnbd/kernel/pipe-calls.js';
import { NBD_CMD_READ } from '#tsnbd/protocol/constants.js';
import { emptyRequest, type Request } from '#tsnbd/protocol/request.js';
import { PIPED_BYTES_MIN, PipedReads } from '#tsnbd/server/piped-reads.js';
import { Replies } from '#tsnbd/server/replies.js';
import { RawClient } from './raw-client.js';

const IMAGE_BYTES = 4_194_304;
/** What the socket must hold: granted to root, or by a system that grants it to all. */
const isGranted = process.getuid?.() === 0 || Number(readFileSync('/proc/sys/net/core/wmem_max', 'utf8')) >= 1_048_576;
const content = randomFillSync(Buffer.alloc(IMAGE_BYTES));

let folder: string;
let fds: number[];
let client: RawClient;
let replies: Replies;
let piped: PipedReads;
/** Of a piece of the image that is put into the pipe: what comes behind cannot be read. */
let readableBytes: number;
/** What takes a place in the pipe: the first of a read is twice as long. */
let pieceBytes: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-piped-'));
  writeFileSync(join(folder, 'disk'), content);
  const fileFd = openSync(join(folder, 'disk'), 'r');
  const [clientFd, socketFd] = socketPair();
  fds = [fileFd, socketFd];
  readableBytes = IMAGE_BYTES;
  pieceBytes = IMAGE_BYTES;
  const image = {
    lendsPages: false,
    readIntoPipe: (offset: number, length: number, pipeFd: number) => {
      const bytes = Math.min(length, readableBytes);
      for (let done = 0; done < bytes; ) {
        const piece = done === 0 ? 2 * pieceBytes : pieceBytes;
        const moved = fileIntoPipe(fileFd, offset + done, Math.min(piece, bytes - done), pipeFd);
        if (moved <= 0) return done;
        done += moved;
      }
      return bytes;
    },
  } as unknown as Image;
  client = RawClient.onFd(clientFd);
  replies = new Replies(socketFd, 'simple', new Int32Array(new SharedArrayBuffer(4)));
  piped = new PipedReads(socketFd, image, replies);
});
afterEach(() => {
  piped.close();
  client.close();
  for (const fd of fds) closeSync(fd);
  rmSync(folder, { recursive: true });
});

function read(offsetBytes: number): Request {
  const bytes = client.encode({ type: NBD_CMD_READ, offsetBytes, lengthBytes: PIPED_BYTES_MIN });
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const cookie = { cookieHigh: view.getUint32(8), cookieLow: view.getUint32(12) };
  return { ...emptyRequest(), ...cookie, type: NBD_CMD_READ, offsetBytes, lengthBytes: PIPED_BYTES_MIN };
}

async function expectReply(cookie: number, offsetBytes: number): Promise<void> {
  const reply = await client.reply();
  expect(reply).toMatchObject({ error: 0, cookie });
  expect(reply.data.equals(content.subarray(offsetBytes, offsetBytes + PIPED_BYTES_MIN))).toBe(true);
}

test.runIf(isGranted && availableParallelism() > 1)(
  'replies that are sent together are whole, more than a pipe holds too',
  async () => {
    const offsets = Array.from({ length: 40 }, (_, index) => index * 100_003);
    for (const offset of offsets) expect(piped.answer(read(offset))).toBe(true);
    piped.send();
    for (const [index, offset] of offsets.entries()) await expectReply(index + 1, offset);
  },
);

test.runIf(isGranted && availableParallelism() > 1)(
  'of one whose data cannot be read nothing is sent, and those before and behind it are whole',
  async () => {
    expect(piped.answer(read(1))).toBe(true);
    readableBytes = 10_000;
    expect(piped.answer(read(2))).toBe(false);
    readableBytes = 0;
    expect(piped.answer(read(3))).toBe(false);
    readableBytes = IMAGE_BYTES;
    expect(piped.answer(read(4))).toBe(true);
    piped.send();
    await expectReply(1, 1);
    await expectReply(4, 4);
  },
);

test.runIf(isGranted && availableParallelism() > 1)(
  'a header that finds no place in the pipe goes there when what the pipe holds was sent',
  async () => {
    pieceBytes = 512; // two reads, of 127 pieces each, and their headers take all 256 places
    const offsets = [0, PIPED_BYTES_MIN, 2 * PIPED_BYTES_MIN];
    for (const offset of offsets) expect(piped.answer(read(offset))).toBe(true);
    piped.send();
    for (const [index, offset] of offsets.entries()) await expectReply(index + 1, offset);
  },
);
