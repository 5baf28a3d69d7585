import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A folder with files of the given paths and texts; text that begins with '-> ' makes a link, undefined a folder. */
export function makeTree(files: Readonly<Record<string, string | undefined>>): string {
  const root = mkdtempSync(join(tmpdir(), 'tsnbd-tree-'));
  for (const [path, text] of Object.entries(files)) {
    const whole = join(root, path);
    mkdirSync(text === undefined ? whole : dirname(whole), { recursive: true });
    if (text?.startsWith('-> ')) symlinkSync(text.slice('-> '.length), whole);
    else if (text !== undefined) writeFileSync(whole, text);
  }
  return root;
}

/** /sys as nbd.ko makes it: nbd0 is up with partitions 1, 2 and 10, nbd1 is free. */
export const twoDevices: Readonly<Record<string, string | undefined>> = {
  'sys/module/nbd/initstate': 'live\n',
  'sys/module/nbd/parameters/nbds_max': '2\n',
  'sys/module/nbd/parameters/max_part': '31\n',
  'sys/block/nbd0/dev': '43:0\n',
  'sys/block/nbd0/size': '32768\n',
  'sys/block/nbd0/ro': '1\n',
  'sys/block/nbd0/pid': '713\n',
  'sys/block/nbd0/holders': undefined,
  'sys/block/nbd0/nbd0p1/dev': '43:1\n',
  'sys/block/nbd0/nbd0p10/dev': '43:10\n',
  'sys/block/nbd0/nbd0p2/dev': '43:2\n',
  'sys/block/nbd0/nbd0px': undefined,
  'sys/block/nbd0/power': undefined,
  'sys/block/nbd1/dev': '43:32\n',
  'sys/block/nbd1/size': '0\n',
  'sys/block/nbd1/ro': '0\n',
  'dev/nbd0': '',
};
