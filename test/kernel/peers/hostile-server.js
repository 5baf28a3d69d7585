// Servers that misbehave, each in its way, on a unix socket named for it (blanks as '-') in the folder of the first
// argument; runs in the guest.
import { createServer } from 'node:net';
import { join } from 'node:path';

const folder = process.argv[2] ?? '.';

const u16 = (/** @type {number} */ value) => bytes(2, (view) => view.setUint16(0, value));
const u32 = (/** @type {number} */ value) => bytes(4, (view) => view.setUint32(0, value));
const u64 = (/** @type {bigint} */ value) => bytes(8, (view) => view.setBigUint64(0, value));

/**
 * @param {number} length
 * @param {(view: DataView) => void} fill
 */
function bytes(length, fill) {
  const made = new Uint8Array(length);
  fill(new DataView(made.buffer));
  return made;
}

const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]);
const GO = 7;
const [ACK, INFO] = [1, 3];

/**
 * @param {number} type
 * @param {Uint8Array} data
 */
function reply(type, data, { option = GO, length = data.length } = {}) {
  return Buffer.concat([u64(0x0003e889045565a9n), u32(option), u32(type), u32(length), data]);
}
const exportInfo = (/** @type {bigint} */ size, flags = 0x1d) =>
  reply(INFO, Buffer.concat([u16(0), u64(size), u16(flags)]));
const blockSize = (/** @type {number} */ minimum) =>
  reply(INFO, Buffer.concat([u16(3), u32(minimum), u32(4096), u32(1 << 25)]));
const ack = reply(ACK, new Uint8Array(0));

const usable = [greeting, Buffer.concat([exportInfo(1n << 20n), ack])];

/** What is sent at once; then, unless it is undefined, to whoever has sent an option. @type {Record<string, Uint8Array[]>} */
const SCRIPTS = {
  'closes early': [],
  'sends garbage': [Buffer.alloc(4096, 0x55)],
  'is of the old style': [
    Buffer.concat([Buffer.from('NBDMAGIC'), u64(0x00420281861253n), u64(1n << 20n), Buffer.alloc(128)]),
  ],
  'has a wrong magic': [Buffer.from('NBDMAGICIHAVEOPX\0\x03')],
  'says nothing at all': [],
  'closes after an option': [greeting],
  'sends a huge length': [greeting, reply(INFO, new Uint8Array(16), { length: 0xffffffff })],
  'answers another option': [greeting, reply(ACK, new Uint8Array(0), { option: 3 })],
  'sends an unknown reply': [greeting, reply(77, new Uint8Array(4))],
  'has an export of 0 bytes': [greeting, Buffer.concat([exportInfo(0n), ack])],
  'has an export of 2^63 bytes': [greeting, Buffer.concat([exportInfo(1n << 63n), ack])],
  'has blocks of 3 bytes': [greeting, Buffer.concat([exportInfo(1n << 20n), blockSize(3), ack])],
  'has blocks of 64 KiB': [greeting, Buffer.concat([exportInfo(1n << 20n), blockSize(65_536), ack])],
  'wants TLS': [greeting, reply(0x80000005, Buffer.from('TLS, please'))],
  'refuses by policy': [greeting, reply(0x80000002, Buffer.from('not on a Sunday'))],
  'does not know the export': [greeting, reply(0x80000006, new Uint8Array(0))],
  'is shutting down': [greeting, reply(0x80000007, new Uint8Array(0))],
  'goes on after its last reply': [greeting, Buffer.concat([exportInfo(1n << 20n), ack, Buffer.from('more')])],
  'never answers a read': usable,
};

/**
 * A simple reply, as the request's cookie and what it asks for are.
 *
 * @param {Buffer} request
 */
function simple(request, { error = 0, cookie = request.subarray(8, 16), dataBytes = request.readUInt32BE(24) } = {}) {
  return Buffer.concat([u32(0x67446698), u32(error), cookie, Buffer.alloc(dataBytes)]);
}
/** What is said to a READ of who can be attached. @type {Record<string, (request: Buffer) => Uint8Array>} */
const READS = {
  'sends a wrong cookie': (request) => simple(request, { cookie: Buffer.alloc(8, 0x11) }),
  'sends half of what was read': (request) => simple(request, { dataBytes: 2_048 }),
  'answers a read twice': (request) => Buffer.concat([simple(request), simple(request)]),
  'sends garbage for a reply': () => Buffer.alloc(4_096, 0x55),
  'reads with an error that NBD does not know': (request) => simple(request, { error: 99, dataBytes: 0 }),
};

for (const [behaviour, script] of Object.entries(SCRIPTS)) {
  const stays = ['says nothing at all', 'never answers a read'].includes(behaviour);
  serve(script, stays).listen(join(folder, behaviour.replaceAll(' ', '-')));
}
for (const [behaviour, answer] of Object.entries(READS)) {
  serve(usable, true, (socket, request) => {
    const isRead = request.readUInt16BE(6) === 0;
    socket.write(isRead ? answer(request) : simple(request, { dataBytes: 0 }));
    if (behaviour === 'sends half of what was read') socket.end();
  }).listen(join(folder, behaviour.replaceAll(' ', '-')));
}

/**
 * @param {Uint8Array[]} script
 * @param {boolean} stays
 * @param {(socket: import('node:net').Socket, request: Buffer) => void} onRequest gets none with data: nothing is written
 */
function serve([first, second], stays, onRequest = () => {}) {
  return createServer((socket) => {
    socket.on('error', () => {});
    if (first !== undefined) socket.write(first);
    if (second === undefined && !stays && first !== greeting) socket.end();
    let answered = false;
    socket.on('data', (received) => {
      if (answered && received.readUInt16BE(6) === 2)
        socket.end(); // NBD_CMD_DISC
      else if (answered) for (let at = 0; at < received.length; at += 28) onRequest(socket, received.subarray(at));
      // The client's flags alone are 4 bytes; an option has more.
      if (answered || received.length < 16) return;
      answered = true;
      if (second !== undefined) socket.write(second);
      else if (!stays) socket.end();
    });
  });
}
