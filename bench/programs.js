// Runs a program to its end, as one of the bench's own.
import { once } from 'node:events';

/** @typedef {import('./owned.js').Owned} Owned */

/**
 * @param {Owned} owned
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ limitMs: number }} options
 * @returns {Promise<string>} what it wrote to its standard output
 */
export async function succeed(owned, program, args, { limitMs }) {
  const child = owned.start(program, args, ['ignore', 'pipe', 'pipe']);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    stderr = (stderr + text).slice(-4096);
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  try {
    const [status, signal] = await once(child, 'close');
    if (status !== 0)
      throw new Error(`${program} ${args.join(' ')} ended with ${status ?? signal}: ${stderr || stdout.slice(-4096)}`);
    return stdout;
  } finally {
    clearTimeout(timer);
    owned.ended(child);
  }
}
