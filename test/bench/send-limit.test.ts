import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { atDefaultLimit, canHaveDefault, DEFAULT_BYTES, putBack } from '../../bench/send-limit.js';

let folder: string;
/** In the kernel's place. */
let limit: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-limit-'));
  limit = join(folder, 'limit');
  writeFileSync(limit, '4194304\n');
});
afterEach(() => rmSync(folder, { recursive: true }));

const now = () => readFileSync(limit, 'latin1').trim();

test('the limit is at its default for as long as something is done, and then what it was, however that ended', async () => {
  expect(canHaveDefault(limit)).toBe(true);
  expect(await atDefaultLimit(folder, async () => now(), limit)).toBe(String(DEFAULT_BYTES));
  expect(now()).toBe('4194304');
  const failing = async () => {
    throw new Error('no figure');
  };
  await expect(atDefaultLimit(folder, failing, limit)).rejects.toThrow('no figure');
  expect(now()).toBe('4194304');
  expect(readdirSync(folder)).toEqual(['limit']);
});

test('a run that ends in the middle puts it back, once', async () => {
  let goOn = () => {};
  const done = atDefaultLimit(folder, () => new Promise<void>((resolve) => (goOn = resolve)), limit);
  expect(now()).toBe(String(DEFAULT_BYTES));
  putBack(folder, limit);
  expect(now()).toBe('4194304');
  writeFileSync(limit, '1');
  goOn();
  await done;
  expect(now()).toBe('1');
});
