import { describe, expect, test } from 'vitest';
import { CursorError, ReadCursor, WriteCursor } from '#tsnbd/base/cursor.js';
import { InvariantError, invariant } from '#tsnbd/base/invariant.js';

describe('cursors', () => {
  test('what is written is read, most significant byte first', () => {
    const bytes = new WriteCursor(1)
      .u8(1)
      .u16be(0x0203)
      .u32be(0x04050607)
      .u64be(0x08090a0b0c0d0e0fn)
      .bytes(Uint8Array.of(16));
    expect([...bytes.finish()]).toEqual(Array.from({ length: 16 }, (_, index) => index + 1));
    const cursor = new ReadCursor(bytes.finish());
    expect([cursor.u8(), cursor.u16be(), cursor.u32be(), cursor.u64be()]).toEqual([
      1,
      0x0203,
      0x04050607,
      0x08090a0b0c0d0e0fn,
    ]);
    expect([...cursor.bytes(1)]).toEqual([16]);
    expect(cursor.remainingBytes).toBe(0);
  });

  test('nothing is read beyond the end, whatever is asked for', () => {
    for (const read of ['u8', 'u16be', 'u32be', 'u64be'] as const) {
      expect(() => new ReadCursor(new Uint8Array(0))[read]()).toThrow(CursorError);
    }
    expect(() => new ReadCursor(Uint8Array.of(1, 2)).bytes(3)).toThrow('3 bytes expected, 2 left');
  });

  test('a view into a larger buffer is read where it lies', () => {
    const within = Uint8Array.of(9, 9, 1, 2, 9).subarray(2, 4);
    expect(new ReadCursor(within).u16be()).toBe(0x0102);
    expect(() => new ReadCursor(within).u32be()).toThrow(CursorError);
  });
});

test('a broken invariant stops its caller and says which', () => {
  invariant(true, 'never');
  expect(() => invariant(false, 'one is two')).toThrow(InvariantError);
  expect(() => invariant(false, 'one is two')).toThrow('invariant broken: one is two');
});
