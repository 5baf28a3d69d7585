// A server that does not negotiate, on the unix socket of the first argument; runs in the guest. It takes requests at once,
// and all that is read is the letter "u".
import { createServer } from 'node:net';

const [REQUEST_BYTES, READ, DISC] = [28, 0, 2];

createServer((socket) => {
  let rest = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (piece) => {
    rest = Buffer.concat([rest, piece]);
    for (; rest.length >= REQUEST_BYTES; rest = rest.subarray(REQUEST_BYTES)) {
      const type = rest.readUInt16BE(6);
      if (type === DISC) {
        socket.end();
        return;
      }
      const header = Buffer.concat([Buffer.from('6744669800000000', 'hex'), rest.subarray(8, 16)]);
      socket.write(Buffer.concat([header, Buffer.alloc(type === READ ? rest.readUInt32BE(24) : 0, 'u')]));
    }
  });
}).listen(process.argv[2] ?? '');
