import { expect, test } from 'vitest';
import { JsonLines, jsonLine, LINE_BYTES_MAX } from '#tsnbd/daemon/json-lines.js';

function received(...pieces: string[]): { values: unknown[]; fine: boolean[] } {
  const values: unknown[] = [];
  const lines = new JsonLines((value) => values.push(value));
  const fine = pieces.map((piece) => lines.receive(Buffer.from(piece)));
  return { values, fine };
}

test('lines arrive whole however they were cut', () => {
  const text = jsonLine({ a: 'ü' }) + jsonLine([1, 2]);
  expect(received(text).values).toEqual([{ a: 'ü' }, [1, 2]]);
  const bytes = Buffer.from(text);
  const values: unknown[] = [];
  const lines = new JsonLines((value) => values.push(value));
  for (const byte of bytes) expect(lines.receive(Buffer.of(byte))).toBe(true);
  expect(values).toEqual([{ a: 'ü' }, [1, 2]]);
});

test('what is not JSON ends the stream', () => {
  expect(received('{"a":1}\nnonsense\n')).toEqual({ values: [{ a: 1 }], fine: [false] });
});

test('a line without end is not collected for ever', () => {
  const piece = 'x'.repeat(LINE_BYTES_MAX);
  expect(received(piece).fine).toEqual([true]);
  expect(received(piece, 'x').fine).toEqual([true, false]);
});
