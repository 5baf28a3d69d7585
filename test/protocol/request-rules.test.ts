import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { emptyRequest, type Request } from '#tsnbd/protocol/request.js';
import { checkRequest, type ExportRules, endsConnection, transmissionFlags } from '#tsnbd/protocol/request-rules.js';

const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 2, 3, 4, 5, 6, 7];
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN] = [1, 2, 4, 8, 16, 32];
const [EPERM, EINVAL, ENOSPC] = [1, 22, 28];
const MiB = 2 ** 20;
const GiB = 2 ** 30;

const disk: ExportRules = { sizeBytes: 8 * GiB, readOnly: false, minimumBlockBytes: 1 };

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
    ['write zeroes', WRITE_ZEROES, ENOSPC],
  ])('%s is done up to the last byte and refused one beyond', (_name, type, error) => {
    expect(check({ type, ...last })).toBe(0);
    expect(check({ type, ...beyond })).toBe(error);
    expect(check({ type, offsetBytes: 2 ** 64, lengthBytes: 512 })).toBe(error);
    expect(check({ type, offsetBytes: 8 * GiB, lengthBytes: 1 })).toBe(error);
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
    for (const type of [READ, WRITE, TRIM, WRITE_ZEROES]) {
      expect(check({ type })).toBe(0);
      expect(check({ type, offsetBytes: 8 * GiB })).toBe(0);
    }
  });
});

describe('on a read-only export', () => {
  const readOnly = { ...disk, readOnly: true };

  it('reading and flushing work', () => {
    expect(check({ type: READ, lengthBytes: 512 }, readOnly)).toBe(0);
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

  it('of TRIM and WRITE_ZEROES go up to 4 GiB', () => {
    for (const type of [TRIM, WRITE_ZEROES]) expect(check({ type, lengthBytes: 2 ** 32 - 1 })).toBe(0);
  });

  it('end the connection only where more data follows than is read for nothing', () => {
    expect(endsConnection({ ...emptyRequest(), type: WRITE, lengthBytes: 32 * MiB })).toBe(false);
    expect(endsConnection({ ...emptyRequest(), type: WRITE, lengthBytes: 32 * MiB + 1 })).toBe(true);
    expect(endsConnection({ ...emptyRequest(), type: READ, lengthBytes: 2 * GiB })).toBe(false);
    expect(endsConnection({ ...emptyRequest(), type: TRIM, lengthBytes: 2 * GiB })).toBe(false);
  });
});

describe('commands and flags', () => {
  it('that are unknown or were not announced are invalid', () => {
    for (const type of [CACHE, BLOCK_STATUS, 8, 9, 255, 65_535]) expect(check({ type })).toBe(EINVAL);
  });

  it('FUA is accepted on every command', () => {
    for (const type of [READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES]) expect(check({ type, flags: FUA })).toBe(0);
  });

  it('NO_HOLE is accepted on WRITE_ZEROES only', () => {
    expect(check({ type: WRITE_ZEROES, flags: NO_HOLE | FUA })).toBe(0);
    for (const type of [READ, WRITE, FLUSH, TRIM]) expect(check({ type, flags: NO_HOLE })).toBe(EINVAL);
  });

  it('flags of features that were not announced are invalid', () => {
    for (const type of [READ, WRITE, FLUSH, TRIM, WRITE_ZEROES]) {
      for (const flags of [DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN, 0x8000]) expect(check({ type, flags })).toBe(EINVAL);
    }
  });

  it('a FLUSH of a range is invalid', () => {
    expect(check({ type: FLUSH, lengthBytes: 1 })).toBe(EINVAL);
    expect(check({ type: FLUSH, offsetBytes: 512 })).toBe(EINVAL);
  });
});

describe('a minimum block size', () => {
  const blocks = { ...disk, minimumBlockBytes: 4096 };

  it('is asked of offset and length', () => {
    for (const type of [READ, WRITE, TRIM, WRITE_ZEROES]) {
      expect(check({ type, offsetBytes: 8192, lengthBytes: 4096 }, blocks)).toBe(0);
      expect(check({ type, offsetBytes: 512, lengthBytes: 4096 }, blocks)).toBe(EINVAL);
      expect(check({ type, offsetBytes: 4096, lengthBytes: 512 }, blocks)).toBe(EINVAL);
      expect(check({ type, offsetBytes: 2048, lengthBytes: 2048 }, blocks)).toBe(EINVAL);
    }
  });
});

describe('whatever a client sends', () => {
  it('what passes lies on the export and is allowed there', () => {
    const request = fc.record({
      flags: fc.integer({ min: 0, max: 65_535 }),
      type: fc.integer({ min: 0, max: 10 }),
      cookieHigh: fc.constant(0),
      cookieLow: fc.constant(0),
      offsetBytes: fc.maxSafeNat(),
      lengthBytes: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    });
    const rules = fc.record({
      sizeBytes: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      readOnly: fc.boolean(),
      minimumBlockBytes: fc.constantFrom(1, 512, 4096),
    });
    fc.assert(
      fc.property(request, rules, (one, allowed) => {
        const answer = checkRequest(one, allowed);
        expect([0, EPERM, EINVAL, ENOSPC]).toContain(answer);
        if (answer !== 0 || one.type === DISC) return;
        expect(BigInt(one.offsetBytes) + BigInt(one.lengthBytes) <= BigInt(allowed.sizeBytes)).toBe(true);
        if (allowed.readOnly) expect([READ, FLUSH]).toContain(one.type);
      }),
      { seed: 9, numRuns: 2000 },
    );
  });
});

describe('the announced flags', () => {
  it('offer flush, FUA, trim, zeroes and several connections', () => {
    expect(transmissionFlags(false)).toBe(0x016d);
  });

  it('of a read-only export say so and offer no change', () => {
    expect(transmissionFlags(true)).toBe(0x010f);
  });
});
