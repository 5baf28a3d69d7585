import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { emptyRequest, type Request } from '#tsnbd/protocol/request.js';
import {
  announcedFlags,
  checkRequest,
  type ExportRules,
  type ExportTraits,
  endsConnection,
  transmissionFlags,
} from '#tsnbd/protocol/request-rules.js';

const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 2, 3, 4, 5, 6, 7];
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN] = [1, 2, 4, 8, 16, 32];
const [EPERM, EINVAL, ENOSPC, EOVERFLOW] = [1, 22, 28, 75];
const COMMANDS = [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS];
const MiB = 2 ** 20;
const GiB = 2 ** 30;

const traits: ExportTraits = { readOnly: false, multiConn: true, rotational: false, fastZero: true, trim: true };

const disk: ExportRules = {
  sizeBytes: 8 * GiB,
  readOnly: false,
  minimumBlockBytes: 1,
  replyStyle: 'simple',
  statusContexts: 0,
  flags: transmissionFlags(traits),
};
const structured: ExportRules = { ...disk, replyStyle: 'structured', statusContexts: 1 };
const extended: ExportRules = { ...structured, replyStyle: 'extended' };
const STYLES = [disk, structured, extended];

function check(fields: Partial<Request>, rules: ExportRules = disk): number {
  return checkRequest({ ...emptyRequest(), ...fields }, rules);
}

describe('a request at the end of the export', () => {
  const last = { offsetBytes: 8 * GiB - 512, lengthBytes: 512 };
  const beyond = { offsetBytes: 8 * GiB - 511, lengthBytes: 512 };

  it.each([
    ['read', READ, EINVAL],
    ['write', WRITE, ENOSPC],
    ['trim', TRIM, EINVAL],
    ['cache', CACHE, EINVAL],
    ['write zeroes', WRITE_ZEROES, ENOSPC],
    ['block status', BLOCK_STATUS, EINVAL],
  ])('%s is done up to the last byte and refused one beyond', (_name, type, error) => {
    expect(check({ type, ...last }, structured)).toBe(0);
    expect(check({ type, ...beyond }, structured)).toBe(error);
    expect(check({ type, offsetBytes: 2 ** 64, lengthBytes: 512 }, structured)).toBe(error);
    expect(check({ type, offsetBytes: 8 * GiB, lengthBytes: 1 }, structured)).toBe(error);
  });

  it('is refused when an export is smaller than the request', () => {
    expect(check({ type: READ, lengthBytes: 513 }, { ...disk, sizeBytes: 512 })).toBe(EINVAL);
  });

  it('is judged exactly for the largest export there is', () => {
    const largest = { ...disk, sizeBytes: Number.MAX_SAFE_INTEGER };
    expect(check({ type: WRITE, offsetBytes: Number.MAX_SAFE_INTEGER - 7, lengthBytes: 7 }, largest)).toBe(0);
    expect(check({ type: WRITE, offsetBytes: Number.MAX_SAFE_INTEGER - 7, lengthBytes: 8 }, largest)).toBe(ENOSPC);
    expect(check({ type: WRITE, offsetBytes: 2 ** 53, lengthBytes: 0 }, largest)).toBe(ENOSPC);
  });
});

describe('a request of length 0', () => {
  it('is in order everywhere on the export', () => {
    for (const type of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES]) {
      expect(check({ type })).toBe(0);
      expect(check({ type, offsetBytes: 8 * GiB })).toBe(0);
    }
    expect(check({ type: WRITE, flags: PAYLOAD_LEN }, extended)).toBe(0);
  });

  it('is invalid for block status, which has to describe something', () => {
    expect(check({ type: BLOCK_STATUS }, structured)).toBe(EINVAL);
    expect(check({ type: BLOCK_STATUS, lengthBytes: 1 }, structured)).toBe(0);
  });
});

describe('on a read-only export', () => {
  const readOnly = { ...structured, readOnly: true, flags: transmissionFlags({ ...traits, readOnly: true }) };

  it('reading, flushing, caching and asking for status work', () => {
    for (const type of [READ, CACHE, BLOCK_STATUS]) expect(check({ type, lengthBytes: 512 }, readOnly)).toBe(0);
    expect(check({ type: FLUSH }, readOnly)).toBe(0);
  });

  it('everything that would change it is not permitted, wherever it points', () => {
    for (const type of [WRITE, TRIM, WRITE_ZEROES]) {
      expect(check({ type, lengthBytes: 512 }, readOnly)).toBe(EPERM);
      expect(check({ type, offsetBytes: 9 * GiB, lengthBytes: 512 }, readOnly)).toBe(EPERM);
    }
  });
});

describe('lengths', () => {
  it('of READ and WRITE go up to 32 MiB', () => {
    for (const type of [READ, WRITE]) {
      expect(check({ type, lengthBytes: 32 * MiB })).toBe(0);
      expect(check({ type, lengthBytes: 32 * MiB + 1 })).toBe(EINVAL);
      expect(check({ type, lengthBytes: 2 * GiB })).toBe(EINVAL);
    }
  });

  it('of the rest go up to 4 GiB, under extended headers to the end of the export', () => {
    const large = { ...extended, sizeBytes: Number.MAX_SAFE_INTEGER };
    for (const [type, beyond] of [
      [TRIM, EINVAL],
      [CACHE, EINVAL],
      [WRITE_ZEROES, ENOSPC],
      [BLOCK_STATUS, EINVAL],
    ] as const) {
      expect(check({ type, lengthBytes: 2 ** 32 - 1 }, structured)).toBe(0);
      expect(check({ type, lengthBytes: Number.MAX_SAFE_INTEGER }, large)).toBe(0);
      expect(check({ type, offsetBytes: 1, lengthBytes: Number.MAX_SAFE_INTEGER }, large)).toBe(beyond);
      expect(check({ type, lengthBytes: 2 ** 64 }, large)).toBe(beyond);
    }
  });

  it('end the connection only where more data follows than is read for nothing', () => {
    for (const style of ['simple', 'structured'] as const) {
      expect(endsConnection({ ...emptyRequest(), type: WRITE, lengthBytes: 32 * MiB }, style)).toBe(false);
      expect(endsConnection({ ...emptyRequest(), type: WRITE, lengthBytes: 32 * MiB + 1 }, style)).toBe(true);
      expect(endsConnection({ ...emptyRequest(), type: READ, lengthBytes: 2 * GiB }, style)).toBe(false);
      expect(endsConnection({ ...emptyRequest(), type: TRIM, lengthBytes: 2 * GiB }, style)).toBe(false);
    }
    for (const type of COMMANDS) {
      const carrying = { ...emptyRequest(), type, flags: PAYLOAD_LEN };
      expect(endsConnection({ ...carrying, lengthBytes: 32 * MiB }, 'extended')).toBe(false);
      expect(endsConnection({ ...carrying, lengthBytes: 32 * MiB + 1 }, 'extended')).toBe(true);
      expect(endsConnection({ ...carrying, flags: 0, lengthBytes: 2 ** 52 }, 'extended')).toBe(type === WRITE);
    }
  });
});

describe('commands and flags', () => {
  it('that are unknown are invalid', () => {
    for (const rules of STYLES) {
      for (const type of [8, 9, 255, 65_535]) expect(check({ type }, rules)).toBe(EINVAL);
    }
  });

  it('that were not announced are invalid', () => {
    const mute = { ...structured, flags: 1 };
    for (const type of [FLUSH, TRIM, CACHE, WRITE_ZEROES]) {
      expect(check({ type }, structured), String(type)).toBe(0);
      expect(check({ type }, mute), String(type)).toBe(EINVAL);
    }
    for (const type of [READ, WRITE, FLUSH]) expect(check({ type, flags: FUA }, mute), String(type)).toBe(EINVAL);
    const slow = { ...disk, flags: transmissionFlags({ ...traits, fastZero: false }) };
    expect(check({ type: WRITE_ZEROES, flags: FAST_ZERO, lengthBytes: 512 }, slow)).toBe(EINVAL);
    const keeping = { ...disk, flags: transmissionFlags({ ...traits, trim: false }) };
    expect(check({ type: TRIM, lengthBytes: 512 }, keeping)).toBe(EINVAL);
  });

  it('FUA is accepted on every command', () => {
    for (const rules of STYLES) {
      for (const type of COMMANDS) {
        const flags = type === WRITE && rules === extended ? FUA | PAYLOAD_LEN : FUA;
        const status = type === BLOCK_STATUS;
        const error = status && rules === disk ? EINVAL : 0;
        expect(check({ type, flags, lengthBytes: status ? 512 : 0 }, rules)).toBe(error);
      }
    }
  });

  it.each([
    ['NO_HOLE', NO_HOLE, WRITE_ZEROES],
    ['FAST_ZERO', FAST_ZERO, WRITE_ZEROES],
    ['NO_HOLE with FAST_ZERO', NO_HOLE | FAST_ZERO, WRITE_ZEROES],
    ['REQ_ONE', REQ_ONE, BLOCK_STATUS],
    ['DF', DF, READ],
  ])('%s is accepted on one command only', (_name, flags, only) => {
    for (const rules of [structured, extended]) {
      const own = (type: number) => (type === WRITE && rules === extended ? PAYLOAD_LEN : 0);
      for (const type of COMMANDS) {
        if (type === DISC) continue; // it has no reply
        const lengthBytes = type === FLUSH ? 0 : 512;
        expect(check({ type, lengthBytes, flags: own(type) }, rules)).toBe(0);
        expect(check({ type, lengthBytes, flags: own(type) | flags }, rules)).toBe(type === only ? 0 : EINVAL);
        expect(check({ type, lengthBytes, flags: own(type) | flags | FUA }, rules)).toBe(type === only ? 0 : EINVAL);
      }
    }
  });

  it('DF needs replies in chunks, and overflows beyond what one chunk carries', () => {
    expect(check({ type: READ, lengthBytes: 512, flags: DF })).toBe(EINVAL);
    for (const rules of [structured, extended]) {
      expect(check({ type: READ, lengthBytes: 65_536, flags: DF }, rules)).toBe(0);
      expect(check({ type: READ, lengthBytes: 32 * MiB + 1, flags: DF | FUA }, rules)).toBe(EOVERFLOW);
      expect(check({ type: READ, lengthBytes: 32 * MiB + 1, flags: FUA }, rules)).toBe(EINVAL);
    }
  });

  it('BLOCK_STATUS without a context is invalid', () => {
    for (const rules of STYLES) {
      expect(check({ type: BLOCK_STATUS, lengthBytes: 512 }, { ...rules, statusContexts: 0 })).toBe(EINVAL);
    }
  });

  it('PAYLOAD_LEN belongs to an extended WRITE, which QEMU sends without it, and to nothing else', () => {
    for (const flags of [0, FUA, PAYLOAD_LEN, PAYLOAD_LEN | FUA]) {
      expect(check({ type: WRITE, lengthBytes: 512, flags }, extended)).toBe(0);
    }
    for (const rules of STYLES) {
      for (const type of COMMANDS) {
        if (type === DISC || (type === WRITE && rules === extended)) continue;
        expect(check({ type, lengthBytes: 512, flags: PAYLOAD_LEN }, rules)).toBe(EINVAL);
      }
    }
  });

  it('unknown flags are invalid', () => {
    for (const type of COMMANDS) {
      if (type === DISC) continue;
      for (let flags = 64; flags < 65_536; flags *= 2) {
        expect(check({ type, flags, lengthBytes: type === FLUSH ? 0 : 512 }, structured)).toBe(EINVAL);
      }
    }
  });

  it('a FLUSH of a range is invalid', () => {
    expect(check({ type: FLUSH, lengthBytes: 1 })).toBe(EINVAL);
    expect(check({ type: FLUSH, offsetBytes: 512 })).toBe(EINVAL);
  });
});

describe('a minimum block size', () => {
  const blocks = { ...structured, minimumBlockBytes: 4096 };

  it('is asked of offset and length', () => {
    for (const type of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS]) {
      expect(check({ type, offsetBytes: 8192, lengthBytes: 4096 }, blocks)).toBe(0);
      expect(check({ type, offsetBytes: 512, lengthBytes: 4096 }, blocks)).toBe(EINVAL);
      expect(check({ type, offsetBytes: 4096, lengthBytes: 512 }, blocks)).toBe(EINVAL);
      expect(check({ type, offsetBytes: 2048, lengthBytes: 2048 }, blocks)).toBe(EINVAL);
    }
  });
});

describe('whatever a client sends', () => {
  it('what passes lies on the export and is allowed there', () => {
    const blocks = fc.integer({ min: 0, max: 16 }).map((count) => count * 4096);
    const offset = fc.oneof({ weight: 1, arbitrary: fc.maxSafeNat() }, { weight: 9, arbitrary: blocks });
    const request = fc.record({
      flags: fc.oneof(
        fc.constantFrom(0, FUA, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN),
        fc.integer({ min: 0, max: 65_535 }),
      ),
      type: fc.integer({ min: 0, max: 10 }),
      offsetBytes: offset,
      lengthBytes: offset,
    });
    const rules = fc.record({
      sizeBytes: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      readOnly: fc.boolean(),
      minimumBlockBytes: fc.constantFrom(1, 512, 4096),
      replyStyle: fc.constantFrom('simple' as const, 'structured' as const, 'extended' as const),
      statusContexts: fc.integer({ min: 0, max: 2 }),
      flags: fc.oneof(fc.constant(65_535), fc.integer({ min: 0, max: 65_535 })),
    });
    let passed = 0;
    fc.assert(
      fc.property(request, rules, (one, allowed) => {
        const answer = check(one, allowed);
        expect([0, EPERM, EINVAL, ENOSPC, EOVERFLOW]).toContain(answer);
        if (answer !== 0 || one.type === DISC) return;
        passed += 1;
        expect(BigInt(one.offsetBytes) + BigInt(one.lengthBytes) <= BigInt(allowed.sizeBytes)).toBe(true);
        if (allowed.readOnly) expect([READ, FLUSH, CACHE, BLOCK_STATUS]).toContain(one.type);
        if (one.type === READ || one.type === WRITE) expect(one.lengthBytes).toBeLessThanOrEqual(32 * MiB);
        if (one.type === BLOCK_STATUS) expect(allowed.statusContexts).toBeGreaterThan(0);
        if ((one.flags & PAYLOAD_LEN) !== 0) expect([one.type, allowed.replyStyle]).toEqual([WRITE, 'extended']);
      }),
      { seed: 9, numRuns: 10_000 },
    );
    expect(passed).toBeGreaterThan(300);
  });
});

describe('the announced flags', () => {
  const plain = { ...traits, fastZero: false };

  it('offer flush, FUA, trim, zeroes, cache and several connections', () => {
    expect(transmissionFlags(plain)).toBe(0x056d);
  });

  it('of a read-only export say so and offer no change', () => {
    expect(transmissionFlags({ ...traits, readOnly: true })).toBe(0x050f);
  });

  it('tell each trait by a flag of its own', () => {
    expect(transmissionFlags({ ...plain, fastZero: true })).toBe(0x056d | 0x0800);
    expect(transmissionFlags({ ...plain, rotational: true })).toBe(0x056d | 0x0010);
    expect(transmissionFlags({ ...plain, trim: false })).toBe(0x056d & ~0x0020);
    expect(transmissionFlags({ ...plain, multiConn: false })).toBe(0x056d & ~0x0100);
  });

  it('offer DF once replies come in chunks, and never before', () => {
    expect(announcedFlags(0x056d, 'simple')).toBe(0x056d);
    expect(announcedFlags(0x056d | 0x80, 'simple')).toBe(0x056d);
    expect(announcedFlags(0x056d, 'structured')).toBe(0x05ed);
    expect(announcedFlags(0x056d, 'extended')).toBe(0x05ed);
  });
});
