// Runs in the guest: connects a device to servers in memory, once for each task of its argument (a JSON list). Writes a JSON
// line for each thing that happens. `hold` keeps the device until SIGUSR2 or its end.
import { closeSync, existsSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { UndoStack } from '#tsnbd/base/undo.js';
import { flushDevice, rescanPartitions, rescanPartitionsHere } from '#tsnbd/kernel/device-child.js';
import { exitNow, socketPair } from '#tsnbd/kernel/fd-calls.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';
import { connectDevice, disconnectForeignDevice, disconnectLeftover } from '#tsnbd/kernel/nbd-device.js';
import { deviceUsers } from '#tsnbd/kernel/proc.js';
import { deviceBackend, deviceState } from '#tsnbd/kernel/sysfs.js';

const usual = {
  device: 'nbd0',
  kernelApi: 'auto',
  manner: 'good',
  connections: 1,
  sizeBytes: 16 * 2 ** 20,
  rounds: 1,
  patienceMs: 20_000,
  flushes: 0,
};

/** @type {Record<string, any>} the one that is being done */
let task = usual;
/** The device that it is about: the kernel may choose it. */
let device = usual.device;

/** @param {Record<string, unknown>} event */
const say = (event) =>
  process.stdout.write(`${JSON.stringify(event, (_, value) => (value === undefined ? null : value))}\n`);

for (const signal of /** @type {const} */ ([
  'SIGTERM',
  'SIGHUP',
  'SIGINT',
  'SIGUSR1',
  'SIGWINCH',
  'SIGCHLD',
  'SIGCONT',
])) {
  process.on(signal, () => say({ signal }));
}

async function runAll() {
  loadLibc();
  for (const given of JSON.parse(process.argv[2] ?? '[]')) {
    task = { ...usual, ...given };
    device = task.device;
    say({ begins: given });
    await run();
  }
  // Servers that were told to misbehave may still block.
  exitNow(0);
}

async function run() {
  if (task.users !== undefined) return say({ users: deviceUsers(task.device, task.users) });
  if (task.foreign !== undefined) return attempt(() => disconnectForeignDevice(task.device, task.foreign));
  if (task.leftover) {
    const backend = deviceBackend(task.device);
    return attempt(() => disconnectLeftover(task.device, { backend, owner: backend }));
  }
  for (let round = 0; round < task.rounds; round += 1) {
    const before = openFds();
    await attempt(oneRound);
    say({ leftFds: openFds().length - before.length, state: deviceState(device) });
  }
}

async function oneRound() {
  const pairs = Array.from({ length: task.connections }, () => socketPair());
  const disk = new SharedArrayBuffer(task.sizeBytes);
  const undo = new UndoStack((step) => {
    say({ step });
    if (step === task.failBefore) throw new Error('failed as asked');
  });
  const servers = pairs.map(([, fd]) => {
    // The thread closes an fd that the main thread made, which Node would warn of.
    const worker = new Worker(new URL('./memory-server.js', import.meta.url), {
      workerData: { fd, disk, manner: task.manner },
      trackUnmanagedFds: false,
    });
    worker.on('message', (message) => say({ server: message }));
    return new Promise((resolve) => worker.on('exit', resolve));
  });
  try {
    await hold(
      await connect(
        pairs.map(([fd]) => fd),
        undo,
      ),
    );
  } finally {
    const start = performance.now();
    const failures = await undo.undoAll();
    say({
      undone: failures.map(({ step, cause }) => `${step}: ${cause}`),
      tookMs: Math.round(performance.now() - start),
    });
    for (const [ours] of pairs) closeSync(ours);
    if (task.manner !== 'mute') await Promise.all(servers);
  }
}

/** @param {readonly number[]} sockets @param {UndoStack} undo */
async function connect(sockets, undo) {
  const setup = {
    sizeBytes: task.sizeBytes,
    blockSizeBytes: 512,
    flags: 0x1 | 0x4 | 0x8 | 0x20,
    requestTimeoutSeconds: 0,
    requestBytesMax: undefined,
    deadTimeoutSeconds: undefined,
    unattended: false,
    sockets,
    ...task.setup,
  };
  if (task.pauseBefore !== undefined) {
    const tell = undo.step.bind(undo);
    undo.step = async (name, act, back) => {
      if (name === task.pauseBefore) say({ paused: name });
      while (name === task.pauseBefore && !existsSync(task.goOn)) await sleep(20);
      return tell(name, act, back);
    };
  }
  return connectDevice({ device: task.device ?? undefined, kernelApi: task.kernelApi }, setup, undo);
}

/** @param {import('#tsnbd/kernel/nbd-device.js').NbdDevice} nbd */
async function hold(nbd) {
  device = nbd.name;
  say({ up: { device, kernelApi: nbd.kernelApi, ...deviceState(device) } });
  if (task.rescanMs !== undefined) {
    const rescan = task.rescanHere ? rescanPartitionsHere : rescanPartitions;
    await attempt(() => rescan(device, task.rescanMs));
    say({ partitions: deviceState(device).partitions });
  }
  if (task.hold) await Promise.race([nbd.ended, new Promise((resolve) => process.once('SIGUSR2', resolve))]);
  for (let i = 0; i < task.flushes; i += 1) say({ flush: await flushDevice(device, 10_000) });
  const start = performance.now();
  nbd.disconnect();
  nbd.disconnect();
  say({ disconnectMs: Math.round(performance.now() - start) });
  say({ ended: await Promise.race([nbd.ended, sleep(task.patienceMs, 'not yet')]) });
  nbd.disconnect();
}

/** @param {() => unknown} act */
async function attempt(act) {
  try {
    await act();
  } catch (error) {
    const { code, message } = /** @type {Error & { code?: string }} */ (error);
    say({ code, message });
  }
}

/** The fds that this process holds of devices and sockets. */
function openFds() {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return /^(socket:|\/dev\/nbd)/.test(readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      return false;
    }
  });
}

void runAll();
