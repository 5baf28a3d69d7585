// The command line of scripts/kernel-bench: boots a guest, runs one command in it, passes on what it says.
import { mkdirSync, realpathSync } from 'node:fs';
import { constants } from 'node:os';
import { bootGuest, GuestError } from './kernel-bench-guest.js';
import { quote } from './kernel-bench-start.js';

const usage = `usage: scripts/kernel-bench [-t SECONDS] [-w FOLDER] [-m MEMORY] [-n 'NBD PARAMETERS'] COMMAND...
Runs COMMAND on a real kernel with the nbd driver (User-Mode Linux) and gives its output and exit status.
One argument is a command line of sh; several are a command and its arguments.
The guest sees the whole host, and what it writes is gone afterwards, except in FOLDER (by default a new one, removed
at the end; the command finds its path in BENCH_WORK).
  -t  time limit of the command, 600 s by default
  -m  memory of the guest, 2G by default; /tmp and /dev/shm in it are in memory
  -n  parameters of the nbd module, 'max_part=16 nbds_max=8' by default; none: the module is not loaded
TSNBD_BENCH_KERNEL=debian12 boots the kernel of Debian 12 where a newer one is there.
Exit status: that of COMMAND, or 124 after the time limit, 125 when the guest did not boot or died, 2 for wrong usage.`;

process.exitCode = await main(process.argv.slice(2));

/** @param {string[]} words */
async function main(words) {
  /** @type {Record<string, string>} */
  const options = {};
  while (/^-[twmn]$/.test(words[0] ?? '')) {
    const [name, value] = words.splice(0, 2);
    if (name === undefined || value === undefined) return complain(usage);
    options[name] = value;
  }
  if (words[0] === '--help') return console.log(usage) ?? 0;
  if (words[0] === '--') words.shift();
  if (words.length === 0 || words[0]?.startsWith('-')) return complain(usage);
  const limitMs = Number(options['-t'] ?? 600) * 1000;
  if (!(limitMs > 0)) return complain('-t takes a number of seconds');
  try {
    return await runOnce(words.length === 1 ? String(words[0]) : words.map(quote).join(' '), limitMs, options);
  } catch (error) {
    if (!(error instanceof GuestError)) throw error;
    console.error(`kernel-bench: ${error.message}`);
    return 125;
  }
}

/** @param {string} message */
function complain(message) {
  console.error(message);
  return 2;
}

/**
 * @param {string} command
 * @param {number} limitMs
 * @param {Record<string, string>} options
 */
async function runOnce(command, limitMs, { '-w': folder, '-m': memory, '-n': nbd }) {
  // The guest's own exit handler ends it and removes its folder.
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  if (folder !== undefined) mkdirSync(folder, { recursive: true });
  const guest = await bootGuest({
    ...(folder === undefined ? {} : { workDir: realpathSync(folder) }),
    ...(memory === undefined ? {} : { memory }),
    ...(nbd === undefined ? {} : { nbd }),
  });
  try {
    const onOutput = (/** @type {'stdout' | 'stderr'} */ stream, /** @type {Buffer} */ bytes) =>
      process[stream].write(bytes);
    const { status } = await guest.run(command, { limitMs, cwd: process.cwd(), onOutput });
    return status;
  } finally {
    await guest.powerOff();
  }
}
