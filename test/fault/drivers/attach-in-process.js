// Runs in the guest: attaches and detaches in one process by the attach room itself, so that a round costs no start of
// Node. argv: 'rounds' N | 'parallel' N | 'steps' | 'every-step', then the request as JSON; 'parallel' takes a list of requests,
// each of another device, which are attached and detached beside each other, N times each. Prints one JSON object.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { attachAndHold } from '#tsnbd/attach/attach.js';

const [mode, ...rest] = process.argv.slice(2);
const given = JSON.parse(rest.at(-1) ?? '');
/** @type {any[]} */
const requests = Array.isArray(given) ? given : [given];
const [request] = requests;

/** What an attach can leave behind, as the outside sees it. */
function leftovers() {
  const devices = requests.map(({ device }) => `/sys/block/${device}`);
  return {
    pid: devices.some((device) => existsSync(`${device}/pid`)),
    sectors: devices.reduce((sum, device) => sum + Number(readFileSync(`${device}/size`, 'utf8')), 0),
    runFiles: existsSync('/run/tsnbd') ? readdirSync('/run/tsnbd') : [],
    fds: openFiles().sort(),
    threads: readdirSync('/proc/self/task').length,
    children: readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim(),
  };
}

/** By what they are. */
function openFiles() {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const link = readlinkSync(`/proc/self/fd/${fd}`);
      return [link.replace(/\[[0-9]+\]$|[0-9]+$/, '')];
    } catch {
      return []; // the one that reads this folder
    }
  });
}

/**
 * @param {(step: string) => void} [beforeStep]
 * @returns {Promise<string>} how the attach ended
 */
async function attachOnce(beforeStep = () => {}, which = request) {
  try {
    return await attachAndHold(which, {
      onEvent: () => {},
      stop: new AbortController().signal,
      beforeStep,
      onAttached: (attachment) => attachment.detach(false),
    });
  } catch (error) {
    return /** @type {Error} */ (error).message;
  }
}

/**
 * Threads and descriptors end a moment after what they were for.
 * @param {ReturnType<typeof leftovers>} expected
 */
async function settled(expected) {
  for (let i = 0; i < 50 && JSON.stringify(leftovers()) !== JSON.stringify(expected); i += 1) await sleep(20);
  return leftovers();
}

async function main() {
  if (mode === 'rounds' || mode === 'parallel') {
    // The first round opens what stays open: the library, thread pools, threads for calls that sleep.
    await Promise.all(requests.map((each) => attachOnce(() => {}, each)));
    const before = leftovers();
    const ends = new Map();
    const attachAgain = async (/** @type {any} */ which) => {
      for (let i = 0; i < Number(rest[0]); i += 1) {
        const end = await attachOnce(() => {}, which);
        ends.set(end, (ends.get(end) ?? 0) + 1);
      }
    };
    await Promise.all(requests.map(attachAgain));
    console.log(JSON.stringify({ ends: Object.fromEntries(ends), before, after: await settled(before) }));
  } else {
    /** @type {string[]} */
    const steps = [];
    const untouched = await attachOnce((step) => steps.push(step));
    const before = leftovers();
    const failures = [];
    for (const failing of steps) {
      const end = await attachOnce((step) => {
        if (step === failing) throw new Error(`injected before '${step}'`);
      });
      const after = await settled(before);
      failures.push({ failing, end, after, ...(mode === 'every-step' && { next: await attachOnce() }) });
    }
    console.log(JSON.stringify({ untouched, steps, before, failures, next: await attachOnce() }));
  }
}

void main();
