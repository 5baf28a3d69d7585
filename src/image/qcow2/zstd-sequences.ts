/** Extra bits of the codes of literals' and matches' lengths (RFC 8878, 'Sequence Codes for Lengths and Offsets'). */
const LITERALS_BITS = Uint8Array.of(...zeroes(16), 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
const MATCH_BITS = Uint8Array.of(...zeroes(32), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
const LITERALS_BASES = basesOf(LITERALS_BITS, 0);
const MATCH_BASES = basesOf(MATCH_BITS, 3);
const OFFSET_CODES = 32;

/** The accuracy of a table that a block brings is at most so fine, and at least so. */
const LOG_MIN = 5;
const PREDEFINED = 0;
const REPEATED_SYMBOL = 1;
const TABLE_IN_BLOCK = 2;
const NONE_LEFT = -1;

/** An FSE decoder: of each of its states the symbol, and by which bits the next is found, NEXT_BITS and NEXT_BASE up. */
interface Table {
  readonly log: number;
  readonly states: Int32Array;
}

const SYMBOL = 0xff;
const NEXT_BITS = 8;
const NEXT_BASE = 16;

interface TableKind {
  readonly codes: number;
  readonly logMax: number;
  readonly predefined: Table;
}

/** In the order in which a block brings them: of literals' lengths, offsets, matches' lengths ('Default Distributions'). */
const KINDS: readonly TableKind[] = [
  {
    codes: LITERALS_BITS.length,
    logMax: 9,
    predefined: tableOf(
      [4, 3, ...times(11, 2), 1, 1, 1, ...times(9, 2), 3, 2, 1, 1, 1, 1, 1, ...times(4, NONE_LEFT)],
      6,
    ),
  },
  {
    codes: OFFSET_CODES,
    logMax: 8,
    predefined: tableOf([...times(6, 1), 2, 2, 2, ...times(15, 1), ...times(5, NONE_LEFT)], 5),
  },
  {
    codes: MATCH_BITS.length,
    logMax: 9,
    predefined: tableOf([1, 4, 3, ...times(6, 2), ...times(37, 1), ...times(7, NONE_LEFT)], 6),
  },
];

/**
 * Tells how long the content of a frame's compressed blocks is, which their sequences say one by one: a few bytes can
 * stand for gigabytes, which a decoder that is not told writes to nowhere.
 */
export class SequenceLengths {
  /** Of the last block that had any. */
  #tables: readonly (Table | undefined)[] = [];

  /** What the sequences in `bytes` from `begin` to `end` copy of what is before them, at most `limit`; −1 for more, or what makes no sense. */
  matchBytes(bytes: Uint8Array, begin: number, end: number, literalsBytes: number, limit: number): number {
    const reader = new ForwardBits(bytes, begin, end);
    const count = sequenceCount(reader);
    if (count === 0) return 0;
    const modes = reader.read(8);
    const tables = KINDS.map((kind, index) => this.#table(kind, index, (modes >>> (6 - 2 * index)) & 3, reader));
    const [literals, offsets, matches] = tables;
    const begun = reader.byte * 8;
    const last = reader.byte < end ? (bytes[end - 1] ?? 0) : 0;
    if (literals === undefined || offsets === undefined || matches === undefined) return -1;
    if (reader.isBeyond || last === 0 || (modes & 3) !== 0) return -1;
    this.#tables = tables;
    // From here on bits are read from the end on, below the highest that is set.
    let bit = end * 8 - 8 + 31 - Math.clz32(last);
    bit -= literals.log;
    let literal = bitsAt(bytes, bit, literals.log);
    bit -= offsets.log;
    let offset = bitsAt(bytes, bit, offsets.log);
    bit -= matches.log;
    let match = bitsAt(bytes, bit, matches.log);
    let [literalsLeft, sum] = [literalsBytes, 0];
    for (let sequence = 1; ; sequence += 1) {
      const literalState = literals.states[literal] ?? 0;
      const offsetState = offsets.states[offset] ?? 0;
      const matchState = matches.states[match] ?? 0;
      bit -= offsetState & SYMBOL;
      const matchBits = MATCH_BITS[matchState & SYMBOL] ?? 0;
      bit -= matchBits;
      sum += (MATCH_BASES[matchState & SYMBOL] ?? 0) + bitsAt(bytes, bit, matchBits);
      const literalBits = LITERALS_BITS[literalState & SYMBOL] ?? 0;
      bit -= literalBits;
      literalsLeft -= (LITERALS_BASES[literalState & SYMBOL] ?? 0) + bitsAt(bytes, bit, literalBits);
      if (sum > limit || literalsLeft < 0 || bit < begun) return -1;
      if (sequence === count) return sum;
      bit -= (literalState >>> NEXT_BITS) & SYMBOL;
      literal = nextState(literalState, bytes, bit);
      bit -= (matchState >>> NEXT_BITS) & SYMBOL;
      match = nextState(matchState, bytes, bit);
      bit -= (offsetState >>> NEXT_BITS) & SYMBOL;
      offset = nextState(offsetState, bytes, bit);
    }
  }

  #table(kind: TableKind, index: number, mode: number, reader: ForwardBits): Table | undefined {
    if (mode === PREDEFINED) return kind.predefined;
    if (mode === TABLE_IN_BLOCK) return readTable(kind, reader);
    if (mode !== REPEATED_SYMBOL) return this.#tables[index];
    const symbol = reader.read(8);
    if (symbol >= kind.codes) return undefined;
    return { log: 0, states: Int32Array.of(symbol) };
  }
}

function nextState(state: number, bytes: Uint8Array, bit: number): number {
  return (state >>> NEXT_BASE) + bitsAt(bytes, bit, (state >>> NEXT_BITS) & SYMBOL);
}

function sequenceCount(reader: ForwardBits): number {
  const first = reader.read(8);
  if (first < 128) return first;
  return first < 255 ? ((first - 128) << 8) + reader.read(8) : reader.read(16) + 0x7f00;
}

/** 'FSE Table Description': how probable each symbol is, in as few bits as what is left of 1 can take. */
function readTable({ codes, logMax }: TableKind, reader: ForwardBits): Table | undefined {
  const log = LOG_MIN + reader.read(4);
  if (log > logMax) return undefined;
  const shares: number[] = [];
  for (let left = 1 << log; left > 0; ) {
    const bits = 32 - Math.clz32(left + 1);
    const small = (1 << bits) - 2 - left;
    let value = reader.read(bits - 1);
    if (value >= small) {
      value += reader.read(1) << (bits - 1);
      if (value >= 1 << (bits - 1)) value -= small;
    }
    shares.push(value - 1);
    left -= Math.abs(value - 1);
    for (let more = value === 1 ? 3 : 0; more === 3; ) {
      more = reader.read(2);
      shares.push(...zeroes(more));
    }
    if (left < 0 || shares.length > codes || reader.isBeyond) return undefined;
  }
  reader.align();
  return tableOf(shares, log);
}

/** 'From normalized distribution to decoding tables'. */
function tableOf(shares: readonly number[], log: number): Table {
  const size = 1 << log;
  const states = new Int32Array(size);
  const counts = shares.map((share) => Math.abs(share));
  let top = size;
  for (const [symbol, share] of shares.entries()) {
    if (share !== NONE_LEFT) continue;
    top -= 1;
    states[top] = symbol;
  }
  let at = 0;
  for (const [symbol, share] of shares.entries()) {
    for (let placed = 0; placed < share; placed += 1) {
      states[at] = symbol;
      do at = (at + (size >>> 1) + (size >>> 3) + 3) & (size - 1);
      while (at >= top);
    }
  }
  for (const [state, symbol] of states.entries()) {
    const number = counts[symbol] ?? 0;
    counts[symbol] = number + 1;
    const bits = log - (31 - Math.clz32(number));
    states[state] = symbol | (bits << NEXT_BITS) | (((number << bits) - size) << NEXT_BASE);
  }
  return { log, states };
}

/** Bits from the lowest of the first byte on. */
class ForwardBits {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #bit: number;

  constructor(bytes: Uint8Array, begin: number, end: number) {
    this.#bytes = bytes;
    this.#end = end;
    this.#bit = begin * 8;
  }

  /** At most 16. */
  read(bits: number): number {
    const value = bitsAt(this.#bytes, this.#bit, bits);
    this.#bit += bits;
    return value;
  }

  get isBeyond(): boolean {
    return this.#bit > this.#end * 8;
  }

  /** What is read from now on begins with a byte of which no bit was read. */
  align(): void {
    this.#bit = Math.ceil(this.#bit / 8) * 8;
  }

  /** Where it stands, between two bytes. */
  get byte(): number {
    return this.#bit / 8;
  }
}

/** At most 16. */
function bitsAt(bytes: Uint8Array, bit: number, bits: number): number {
  const at = bit >>> 3;
  const word = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16);
  return (word >>> (bit & 7)) & ((1 << bits) - 1);
}

function basesOf(bits: Uint8Array, first: number): Int32Array {
  let base = first;
  return Int32Array.from(bits, (each) => {
    const own = base;
    base += 1 << each;
    return own;
  });
}

function times(count: number, value: number): readonly number[] {
  return new Array<number>(count).fill(value);
}

function zeroes(count: number): readonly number[] {
  return times(count, 0);
}
