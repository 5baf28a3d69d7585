// Has V8 compile the code beside this file, all of it, and keeps what comes out for the starts that follow (bundle.js): in the
// guest of the kernel tests they take a fourth less. To be run where the programs are, by the Node that is to run them: when they are built, and
// when npm installs them. Who may write it may write the programs; without it, or for another Node, they are compiled at each start.
const { createHash } = require('node:crypto');
const {
  closeSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const { basename, join } = require('node:path');
const { setFlagsFromString } = require('node:v8');
const { Script } = require('node:vm');

/**
 * A thread for each connection, in whose memory all of what is compiled would lie, used or not: 1.2 MiB. There it is what V8 has found
 * out of each function by looking over the code, which takes most of the time.
 */
const PER_CONNECTION = 'worker.code.js';

const { size, mtimeMs } = statSync(process.execPath);
const files = readdirSync(__dirname).map((name) => join(__dirname, name));
for (const old of files.filter((name) => name.endsWith('.cache'))) rmSync(old, { force: true });
for (const filename of files.filter((name) => name.endsWith('.code.js'))) {
  const code = readFileSync(filename, 'latin1');
  const hash = createHash('sha256').update(code).digest('hex').slice(0, 16);
  if (basename(filename) !== PER_CONNECTION) setFlagsFromString('--no-lazy');
  const script = new Script(code, { filename });
  setFlagsFromString('--lazy'); // V8 takes only what was made with the flags that it has
  keep(`${filename}.${hash}.${process.version}-${size}-${Math.trunc(mtimeMs)}.cache`, script.createCachedData());
}

/**
 * V8 looks at the head and the length of what it takes, so the name is given to what is whole; another may do the same now.
 * @param {string} path
 * @param {Buffer} bytes
 */
function keep(path, bytes) {
  const whole = `${path}.${process.pid}.new`;
  const fd = openSync(whole, 'w');
  writeFileSync(fd, bytes);
  fsyncSync(fd);
  closeSync(fd);
  renameSync(whole, path);
}
