import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ExportInfo } from '#tsnbd/protocol/export-info.js';
import { converse, directory } from './converse.js';

const text = fc.string({ unit: 'grapheme', maxLength: 300 }).filter((some) => !some.includes('\0'));

const blockSizes = fc
  .tuple(fc.integer({ min: 0, max: 16 }), fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 2 ** 25 }))
  .map(([minimum, more, payload]) => {
    const preferred = Math.max(512, 2 ** (minimum + more));
    return { minimum: 2 ** minimum, preferred, maximumPayload: preferred + payload };
  });

const anExport: fc.Arbitrary<ExportInfo & { name: string; description: string }> = fc.record({
  name: text,
  description: text,
  sizeBytes: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  // DF is for replies in chunks, which our client does not ask for.
  flags: fc.integer({ min: 0, max: 65_535 }).map((flags) => (flags | 1) & ~0x80),
  blockSizes,
});

describe('our client and our server', () => {
  it('agree on every export', () => {
    fc.assert(
      fc.property(anExport, (one) => {
        const { clientOutcome, serverOutcome } = converse({ kind: 'go', exportName: one.name }, directory(one));
        expect(clientOutcome).toEqual({
          kind: 'transmission',
          export: one,
          fixedNewstyle: true,
          replyStyle: 'simple',
          contexts: [],
        });
        expect(serverOutcome).toMatchObject({ kind: 'transmission', exportName: one.name });
      }),
      { seed: 9, numRuns: 300 },
    );
  });

  it('agree on the richest replies and on the contexts that both know', () => {
    const one = { sizeBytes: 512, flags: 1, contexts: ['base:allocation'] };
    const goal = {
      kind: 'go',
      exportName: 'x',
      replyStyle: 'extended',
      contexts: ['base:allocation', 'x-y:z'],
    } as const;
    const { clientOutcome, serverOutcome } = converse(goal, directory({ name: 'x', ...one }));
    const agreed = { replyStyle: 'extended', contexts: [{ name: 'base:allocation' }] };
    expect(clientOutcome).toMatchObject({ kind: 'transmission', ...agreed });
    expect(serverOutcome).toMatchObject({ kind: 'transmission', ...agreed });
    const described = converse({ ...goal, kind: 'info', listsContexts: true }, directory({ name: 'x', ...one }));
    expect(described.clientOutcome).toMatchObject({ kind: 'info', replyStyle: 'extended', contexts: one.contexts });
  });

  it('part after information as they part after an unknown export', () => {
    fc.assert(
      fc.property(anExport, (one) => {
        const informed = converse({ kind: 'info', exportName: one.name }, directory(one));
        expect(informed.clientOutcome).toEqual({ kind: 'info', export: one, replyStyle: 'simple', contexts: [] });
        expect(informed.serverOutcome).toMatchObject({ reason: { code: 'aborted' } });
        const unknown = converse({ kind: 'go', exportName: `${one.name}!` }, directory(one));
        expect(unknown.clientOutcome).toMatchObject({ kind: 'failed', error: { code: 'unknown-export' } });
        expect(unknown.serverOutcome).toMatchObject({ reason: { code: 'aborted' } });
      }),
      { seed: 9 },
    );
  });

  it('agree on every list', () => {
    fc.assert(
      fc.property(fc.array(anExport, { maxLength: 20 }), (exports) => {
        const { clientOutcome } = converse({ kind: 'list' }, directory(...exports));
        const expected = exports.map(({ name, description }) => ({ name, description }));
        expect(clientOutcome).toEqual({ kind: 'list', exports: expected });
      }),
      { seed: 9 },
    );
  });
});
