type Random = (below: number) => number;

/** `bytes` with none to four damages; `corpus` lends parts of other handshakes. */
export function mutate(bytes: Uint8Array, corpus: readonly Uint8Array[], random: Random): Uint8Array {
  let damaged = bytes;
  for (let times = random(5); times > 0; times -= 1) {
    const damage = damages[random(damages.length)];
    if (damage !== undefined) damaged = damage(damaged, corpus, random);
  }
  return damaged;
}

const numbers = [
  0, 1, 2, 3, 5, 6, 7, 0xff, 0x1000, 0x1001, 0xffff, 0x10000, 0x10001, 0x7fffffff, 0x80000001, 0xffffffff,
];

const damages: readonly ((bytes: Uint8Array, corpus: readonly Uint8Array[], random: Random) => Uint8Array)[] = [
  function flipBit(bytes, _corpus, random) {
    const copy = bytes.slice();
    const at = random(copy.length);
    copy[at] = (copy[at] ?? 0) ^ (1 << random(8));
    return copy;
  },
  function setByte(bytes, _corpus, random) {
    const copy = bytes.slice();
    copy[random(copy.length)] = random(256);
    return copy;
  },
  /** A length, a type or a flag field becomes a number that somebody may have forgotten. */
  function setNumber(bytes, _corpus, random) {
    const copy = bytes.slice();
    if (copy.length < 4) return copy;
    const at = 2 * random((copy.length - 2) >> 1);
    new DataView(copy.buffer).setUint32(at, numbers[random(numbers.length)] ?? 0);
    return copy;
  },
  function cutShort(bytes, _corpus, random) {
    return bytes.slice(0, random(bytes.length));
  },
  function takeOut(bytes, _corpus, random) {
    const at = random(bytes.length);
    return concatenate(bytes.subarray(0, at), bytes.subarray(at + 1 + random(24)));
  },
  function repeat(bytes, _corpus, random) {
    const at = random(bytes.length);
    const end = at + 1 + random(60);
    return concatenate(bytes.subarray(0, end), bytes.subarray(at));
  },
  function insert(bytes, _corpus, random) {
    const at = random(bytes.length);
    const noise = Uint8Array.from({ length: 1 + random(16) }, () => random(256));
    return concatenate(bytes.subarray(0, at), noise, bytes.subarray(at));
  },
  /** Goes on as another handshake does, from the same place or any other. */
  function splice(bytes, corpus, random) {
    const other = corpus[random(corpus.length)] ?? bytes;
    const at = random(bytes.length);
    return concatenate(bytes.subarray(0, at), other.subarray(random(2) === 0 ? at : random(other.length)));
  },
];

function concatenate(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
