// For an ordinary user, to whom the limit of threads applies: an image is served while there are threads to be had, and goes
// on where there are none. Prints, a line each, what each step gave.
//   no-thread.js IMAGE IMAGE
import { execFileSync } from 'node:child_process';
import { existsSync, readSync, writeSync } from 'node:fs';
import { ImageServer } from '#tsnbd/attach/image-server.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';
import { NBD_CMD_READ, NBD_REQUEST_BYTES } from '#tsnbd/protocol/constants.js';
import { emptyRequest, encodeRequest } from '#tsnbd/protocol/request.js';

const HALT_LIMIT_MS = 10_000;
const REPLY_BYTES = 16;
const READ_BYTES = 512;

const [first = '', second = ''] = process.argv.slice(2);
/** @param {string} path */
const serverOf = (path) => new ImageServer(openImage(path, { format: 'raw', readOnly: true }));

/** Waits for the answer in this thread. @param {ImageServer} server */
function read({ ends }) {
  const request = new DataView(new ArrayBuffer(NBD_REQUEST_BYTES));
  encodeRequest(request, 0, { ...emptyRequest(), type: NBD_CMD_READ, lengthBytes: READ_BYTES });
  writeSync(ends.kernelEnd, request);
  const reply = Buffer.alloc(REPLY_BYTES + READ_BYTES);
  for (let got = 0; got < reply.length; ) got += readSync(ends.kernelEnd, reply, got, reply.length - got, null);
  return `read ${reply.readInt32BE(4) === 0 ? 'well' : 'with an error'}`;
}

/** @param {() => unknown} step */
async function say(step) {
  console.log(
    await Promise.resolve()
      .then(step)
      .catch((error) => `${error.name} ${error.code}: ${error.message}`),
  );
}

loadLibc();
const serving = serverOf(first);
const halt = () => serving.halt(HALT_LIMIT_MS).then(() => 'halted');
serving.goOn();
await say(() => read(serving));
await say(halt);
execFileSync('prlimit', ['--pid', String(process.pid), '--nproc=1:']);
await say(() => serving.goOn() ?? 'went on');
await say(() => read(serving));
await say(halt);
await say(() => read(serving));
const other = serverOf(second);
await say(() => other.goOn());
await other.stop();
const isLeft = Object.values(other.ends).some((fd) => existsSync(`/proc/self/fd/${fd}`));
console.log(isLeft ? 'sockets are left' : 'no socket is left');
await serving.stop();
