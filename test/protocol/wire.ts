/**
 * Bytes as they stand on the wire, one field a line: hex digits, "text" or zeroes(N), then `#` and what it is.
 */
export function wire(fields: string): Uint8Array {
  const parts = fields.split('\n').flatMap((line) => {
    const field = (line.match(/^\s*("[^"]*"|[^#]*)/)?.[1] ?? '').trim();
    if (field === '') return [];
    if (field.startsWith('"')) return [Buffer.from(field.slice(1, -1), 'utf8')];
    const zeroes = field.match(/^zeroes\((\d+)\)$/)?.[1];
    if (zeroes !== undefined) return [Buffer.alloc(Number(zeroes))];
    const digits = field.replaceAll(/\s/g, '');
    if (!/^([0-9a-f]{2})+$/.test(digits)) throw new Error(`not a field of a byte vector: ${line}`);
    return [Buffer.from(digits, 'hex')];
  });
  return join(parts);
}

export function join(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** A small seeded generator (mulberry32): the same numbers in every run. */
export function seededRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** The same bytes in every way a socket might bring them: whole, byte by byte, in seeded pieces. */
export function cuttings(bytes: Uint8Array): Uint8Array[][] {
  const bytewise = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
  const seeded = [1, 2, 3, 4].map((seed) => pieces(bytes, seededRandom(seed), 40));
  return [[bytes], bytewise, ...seeded];
}

export function pieces(bytes: Uint8Array, random: (below: number) => number, piecesBytesMax: number): Uint8Array[] {
  const cut: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + random(piecesBytesMax);
    cut.push(bytes.subarray(at, end));
    at = end;
  }
  return cut;
}
