// A disk in memory on the unix socket FOLDER/sock, served well, but for one request when FOLDER/fault says so: as of
// 'read garbage', the next read of 64 KiB, which is no file system's own, is answered so, and the file is gone then. argv:
// FOLDER and the disk's bytes; runs in the guest.
import { readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

const folder = process.argv[2] ?? '.';
const disk = Buffer.alloc(Number(process.argv[3]));
const fault = join(folder, 'fault');
const [GO, ABORT] = [7, 2];
const [READ, WRITE, DISC] = [0, 1, 2];

/** @param {string} text in hexadecimal */
const hex = (text) => Buffer.from(text, 'hex');
/** @param {number} value */
const u32 = (value) => hex(value.toString(16).padStart(8, '0'));

/**
 * How a reply is spoilt, and what the connection does then.
 *
 * @type {Record<string, (reply: Buffer) => { sent: Buffer, next: 'goes on' | 'is silent' | 'closes' }>}
 */
const FAULTS = {
  garbage: () => ({ sent: Buffer.alloc(4_096, 0x55), next: 'goes on' }),
  cookie: (reply) => ({
    sent: Buffer.concat([reply.subarray(0, 8), Buffer.alloc(8, 0x11), reply.subarray(16)]),
    next: 'goes on',
  }),
  half: (reply) => ({ sent: reply.subarray(0, reply.length / 2), next: 'is silent' }),
  cut: (reply) => ({ sent: reply.subarray(0, reply.length / 2), next: 'closes' }),
  error: (reply) => ({ sent: Buffer.concat([reply.subarray(0, 4), u32(5), reply.subarray(8, 16)]), next: 'goes on' }),
};

/**
 * @param {number} type
 * @param {number} lengthBytes
 */
function faultOf(type, lengthBytes) {
  if (lengthBytes < 65_536) return undefined;
  let text = '';
  try {
    text = readFileSync(fault, 'utf8').trim();
  } catch {
    return undefined; // as nearly always
  }
  const [what, how = ''] = text.split(' ');
  if (type !== { read: READ, write: WRITE }[what ?? '']) return undefined;
  rmSync(fault);
  return FAULTS[how];
}

/** @param {import('node:net').Socket} socket */
async function serve(socket) {
  const chunks = socket[Symbol.asyncIterator]();
  let held = Buffer.alloc(0);
  const take = async (/** @type {number} */ bytes) => {
    while (held.length < bytes) {
      const { done, value } = await chunks.next();
      if (done) throw new Error('the client is gone');
      held = Buffer.concat([held, value]);
    }
    const got = held.subarray(0, bytes);
    held = held.subarray(bytes);
    return got;
  };
  socket.write(hex('4e42444d4147494349484156454f50540003'));
  await take(4);
  for (let option = 0; option !== GO; ) {
    const head = await take(16);
    option = head.readUInt32BE(8);
    await take(head.readUInt32BE(12));
    const reply = (/** @type {string} */ type, data = Buffer.alloc(0)) =>
      socket.write(Buffer.concat([hex('0003e889045565a9'), u32(option), hex(type), u32(data.length), data]));
    const size = hex(disk.length.toString(16).padStart(16, '0'));
    if (option === GO) reply('00000003', Buffer.concat([hex('0000'), size, hex('0005')])); // has flags, takes flushes
    reply(option === GO || option === ABORT ? '00000001' : '80000001');
    if (option === ABORT) return socket.end();
  }
  for (;;) {
    const request = await take(28);
    const type = request.readUInt16BE(6);
    if (type === DISC) return socket.end();
    const offset = Number(request.readBigUInt64BE(16));
    const range = disk.subarray(offset, offset + request.readUInt32BE(24));
    if (type === WRITE) (await take(range.length)).copy(range);
    const reply = Buffer.concat([
      hex('6744669800000000'),
      request.subarray(8, 16),
      type === READ ? range : Buffer.alloc(0),
    ]);
    const { sent, next } = faultOf(type, range.length)?.(reply) ?? { sent: reply, next: 'goes on' };
    socket.write(sent);
    if (next === 'closes') return socket.end();
    if (next === 'is silent') return;
  }
}

createServer((socket) => {
  socket.on('error', () => {});
  serve(socket).catch(() => socket.destroy());
}).listen(join(folder, 'sock'));
