import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { checkAndTell } from '#tsnbd/cli/check.js';
import { createImage } from '#tsnbd/cli/create.js';
import { showMap } from '#tsnbd/cli/map.js';
import { Progress, progressBar } from '#tsnbd/cli/progress.js';
import { parseTsnbd } from '#tsnbd/cli/tsnbd-options.js';
import type { Address } from '#tsnbd/transport/address.js';
import { ServedImage } from '../server/served-image.js';

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

describe('what can take long shows how far it is', () => {
  const { stderr } = process;
  const terminal = Object.getOwnPropertyDescriptor(stderr, 'isTTY');
  const signals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;
  const listeners = signals.map((signal) => process.listeners(signal));
  let folder: string;
  let served: ServedImage;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tsnbd-progress-'));
    served = new ServedImage();
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    Object.defineProperty(stderr, 'isTTY', terminal ?? { value: undefined, configurable: true });
    for (const [index, signal] of signals.entries()) {
      for (const heard of process.listeners(signal)) {
        if (!listeners[index]?.includes(heard)) process.off(signal, heard);
      }
    }
    await served.close();
    rmSync(folder, { recursive: true });
  });

  /** What a command line writes to stderr. */
  async function writtenBy(isTTY: boolean, ...words: string[]): Promise<string> {
    Object.defineProperty(stderr, 'isTTY', { value: isTTY, configurable: true });
    vi.spyOn(process.stdout, 'write').mockReturnValue(true);
    const written = vi.spyOn(stderr, 'write').mockReset().mockReturnValue(true);
    const action = parseTsnbd(words);
    if (action.kind === 'create') await createImage('tsnbd', action);
    else if (action.kind === 'check') await checkAndTell('tsnbd', action);
    else if (action.kind === 'map') await showMap('tsnbd', action);
    else throw new Error(JSON.stringify(action));
    return written.mock.calls.map(([text]) => text).join('');
  }

  test('create with storage for all, check, and map of an image or an export; on a terminal only', async () => {
    const { address } = await served.start();
    const { port } = address as Extract<Address, { kind: 'tcp' }>;
    const image = join(folder, 'disk.qcow2');
    for (const words of [
      ['create', '-f', 'qcow2', '-o', 'preallocation=full', image, '4M'],
      ['check', image],
      ['map', '-f', 'qcow2', image],
      ['map', `nbd://127.0.0.1:${port}`],
    ]) {
      const [bars, rest] = [/^(\r\[=* *\] [0-9]+ %)+/, /^\r +\r$/];
      const shown = await writtenBy(true, ...words);
      expect(shown, words.join(' ')).toMatch(bars);
      expect(shown.replace(bars, ''), words.join(' ')).toMatch(rest);
      if (words[0] === 'create') rmSync(image);
      expect(await writtenBy(false, ...words), words.join(' ')).toBe('');
    }
  });
});
