import { describe, expect, test } from 'vitest';
import { Progress, progressBar } from '#tsnbd/cli/progress.js';

test.each([
  [0, 100, `[${' '.repeat(40)}] 0 %`],
  [50, 100, `[${'='.repeat(20)}${' '.repeat(20)}] 50 %`],
  [999, 1000, `[${'='.repeat(39)} ] 99 %`],
  [100, 100, `[${'='.repeat(40)}] 100 %`],
  [0, 0, `[${'='.repeat(40)}] 100 %`],
])('%i of %i is %s', (done, total, bar) => {
  expect(progressBar(done, total)).toBe(bar);
});

describe('progress is shown', () => {
  const shownOn = (isTTY: boolean) => {
    const written: string[] = [];
    const stream = { isTTY, write: (text: string) => written.push(text) > 0 };
    const progress = new Progress(stream as unknown as NodeJS.WriteStream);
    for (const done of [1, 1, 2, 1_000_000]) progress.tell(done, 1_000_000);
    progress.end();
    progress.end();
    return written;
  };

  test('on a terminal, when it changes, and is wiped away', () => {
    const [first, last] = [progressBar(0, 1), progressBar(1, 1)];
    expect(shownOn(true)).toEqual([`\r${first}`, `\r${last}`, `\r${' '.repeat(last.length)}\r`]);
  });

  test('nowhere else', () => {
    expect(shownOn(false)).toEqual([]);
  });
});
