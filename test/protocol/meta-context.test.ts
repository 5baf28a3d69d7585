import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProtocolError } from '#tsnbd/protocol/errors.js';
import {
  decodeContextQuestion,
  decodeMetaContext,
  encodeContextQuestion,
  encodeMetaContext,
} from '#tsnbd/protocol/meta-context.js';
import { contextQuestion } from './conversations.js';
import { hex, join, wire } from './wire.js';

describe('the question for metadata contexts', () => {
  const question = { exportName: 'disk', queries: ['base:allocation'] };

  it('is an export and queries', () => {
    expect(hex(encodeContextQuestion(question))).toBe(hex(contextQuestion));
    expect(decodeContextQuestion(contextQuestion)).toEqual(question);
    expect(decodeContextQuestion(wire('00000000 00000000'))).toEqual({ exportName: '', queries: [] });
  });

  it('is refused after every byte where it may be cut, and with a byte too many', () => {
    for (let end = 0; end < contextQuestion.length; end += 1) {
      expect(() => decodeContextQuestion(contextQuestion.subarray(0, end)), `cut at ${end}`).toThrow(ProtocolError);
    }
    expect(() => decodeContextQuestion(join([contextQuestion, wire('00')]))).toThrow('do not add up');
  });

  it('takes a query of 4096 bytes and none longer', () => {
    const query = `x:${'y'.repeat(4094)}`;
    const bytes = encodeContextQuestion({ exportName: '', queries: [query] });
    expect(decodeContextQuestion(bytes).queries).toEqual([query]);
    expect(() => encodeContextQuestion({ exportName: '', queries: [`${query}y`] })).toThrow('4097 bytes');
  });

  it('comes back as it was, whatever is in it', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 100 }).filter((some) => !some.includes('\0'));
    fc.assert(
      fc.property(text, fc.array(text, { maxLength: 20 }), (exportName, queries) => {
        expect(decodeContextQuestion(encodeContextQuestion({ exportName, queries }))).toEqual({ exportName, queries });
      }),
      { seed: 9 },
    );
  });
});

describe('a metadata context', () => {
  const vector = wire(`
    00000001 # id
    "base:allocation"
  `);

  it('is an id and a name', () => {
    expect(hex(encodeMetaContext({ id: 1, name: 'base:allocation' }))).toBe(hex(vector));
    expect(decodeMetaContext(vector)).toEqual({ id: 1, name: 'base:allocation' });
  });

  it('is refused when its id is cut or its name is not UTF-8', () => {
    for (let end = 0; end < 4; end += 1) expect(() => decodeMetaContext(vector.subarray(0, end))).toThrow('too short');
    expect(() => decodeMetaContext(wire('00000001 ff'))).toThrow('not UTF-8');
  });
});
