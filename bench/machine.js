// What the figures depend on besides the programs: printed with every table.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';

/** A line about each program and about the machine. @param {string} us a checkout */
export function versions(us) {
  return {
    tsnbd: commitOf(us),
    nbdkit: firstLine('nbdkit', '--version'),
    'qemu-nbd': firstLine('qemu-nbd', '--version'),
    'nbd-server': firstLine('nbd-server', '-V'),
    'nbd-client': firstLine('nbd-client', '-V'),
    fio: firstLine('fio', '--version'),
    nbdcopy: firstLine('nbdcopy', '--version'),
    node: process.version,
    kernel: release(),
    cores: String(cpus().length),
    processor: cpus()[0]?.model ?? 'unknown',
    memory: `${Math.round(totalmem() / 2 ** 20)} MiB`,
    'net.core.wmem_max': readFileSync('/proc/sys/net/core/wmem_max', 'utf8').trim(),
  };
}

/**
 * @param {string} program
 * @param {string} option
 */
function firstLine(program, option) {
  const { stdout, stderr } = spawnSync(program, [option], { encoding: 'utf8' });
  return `${stdout ?? ''}${stderr ?? ''}`.trim().split('\n')[0] ?? 'missing';
}

/** @param {string} checkout */
function commitOf(checkout) {
  try {
    const git = (/** @type {string[]} */ ...args) =>
      execFileSync('git', ['-C', checkout, ...args], { encoding: 'utf8' });
    return `${git('rev-parse', '--short', 'HEAD').trim()}${git('status', '--porcelain', 'src').trim() ? ' with changes' : ''}`;
  } catch {
    return 'not a checkout';
  }
}
