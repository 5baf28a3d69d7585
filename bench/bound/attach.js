// What no attach of ours can do without, and nothing else: Node, commander, the C library by ffi-rs, and a connection, or for an image
// a thread that serves it. It attaches no device and checks nothing. Bundled and compiled as the programs are.
import { spawn } from 'node:child_process';
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { Command } from 'commander';

const CHANNEL_FD = 3;

/** @typedef {'alone' | 'leaving' | 'image'} Way no process stays; one stays that is connected; one that serves an image */

function main() {
  if (!isMainThread) {
    callC();
    parentPort?.postMessage('ready');
    return;
  }
  const [way, stays, socket = ''] = process.argv.slice(2);
  if (stays === 'stays') stay(/** @type {Way} */ (way), socket);
  else command();
}

function command() {
  const program = new Command('attach').argument('<way>').argument('<socket>').option('--no-persist').parse();
  const [way = '', socket = ''] = program.args;
  if (way === 'alone') {
    callC();
    connect(socket).once('data', () => process.exit());
    return;
  }
  const child = spawn(process.execPath, [import.meta.filename, way, 'stays', socket], {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  child.stdio[CHANNEL_FD]?.once('data', () => process.exit()).once('close', () => process.exit(1));
}

/**
 * Tells that it is ready, and does not stay after all.
 * @param {Way} way
 * @param {string} socket
 */
function stay(way, socket) {
  const ready = () => {
    writeSync(CHANNEL_FD, '\n');
    process.exit();
  };
  callC();
  if (way === 'image') new Worker(import.meta.filename).once('message', ready);
  else connect(socket).once('data', ready);
}

/** Without the report that ffi-rs has made when it is loaded, as in src/kernel/libc.ts. */
function callC() {
  process.report.getReport = () => ({ header: { glibcVersionRuntime: 'assumed' } });
  const { open, load, DataType } = createRequire(import.meta.filename)('ffi-rs');
  open({ library: 'c', path: '' });
  load({ library: 'c', funcName: 'getpid', retType: DataType.I32, paramsType: [], paramsValue: [] });
}

main();
