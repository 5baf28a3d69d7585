import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const demo = fileURLToPath(new URL('../../scripts/demo', import.meta.url));
const hasNbd = existsSync('/sys/module/nbd');

test.each([
  ['an option that it does not have', ['--here', '--now'], [2], /^usage: scripts\/demo --here \[--yes\]\n/],
  // With nbd: not root, no partitions, nothing free, or nobody to ask.
  [
    'no nbd, or nobody to ask',
    ['--here'],
    hasNbd ? [2, 3, 4, 5] : [4],
    hasNbd ? /^/ : /^this kernel has no nbd: try modprobe/,
  ],
])('scripts/demo --here does nothing, and says why in a line: %s', (_name, words, statuses, why) => {
  const { status, stdout, stderr } = spawnSync(demo, words, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  expect(statuses).toContain(status);
  expect(stdout).toBe('');
  expect(stderr).toMatch(/^demo: [^\n]+\n$/);
  expect(stderr.slice('demo: '.length)).toMatch(why);
});
