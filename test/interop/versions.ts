import { execFileSync } from 'node:child_process';

/** The programs of other projects that ours are tried with, and how each is asked for its version. */
const PEERS: Readonly<Record<string, readonly string[]>> = {
  nbdinfo: ['--version'],
  nbdcopy: ['--version'],
  'qemu-img': ['--version'],
  'qemu-io': ['--version'],
  'qemu-nbd': ['--version'],
  nbdkit: ['--version'],
  'nbd-server': ['-V'],
  fio: ['--version'],
  'systemd-socket-activate': ['--version'],
};

/** Each peer's version, a line of its own words; throws when one is missing. */
export function peerVersions(): readonly string[] {
  return Object.entries(PEERS).map(([program, argument]) => {
    const line = execFileSync(program, argument, { encoding: 'utf8' }).trim().split('\n')[0] ?? '';
    if (!/\d+\.\d+/.test(line)) throw new Error(`${program} does not tell its version: ${line}`);
    return `${program}: ${line}`;
  });
}
