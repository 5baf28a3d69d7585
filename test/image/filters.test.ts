import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { DetectZeroesImage } from '#tsnbd/image/detect-zeroes.js';
import { DiscardIgnoredImage } from '#tsnbd/image/discard-ignored.js';
import { GuessedRawImage } from '#tsnbd/image/guessed-raw.js';
import { emptyExtent, type Image, NOT_BEGUN, ZERO_FAST, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';
import { UnsafeImage } from '#tsnbd/image/unsafe.js';
import { WritethroughImage } from '#tsnbd/image/writethrough.js';

const { EDOM, EIO } = constants.errno;

/** An image that writes down what it is asked for and answers `errno`. */
function recorder(errno = 0) {
  const log: string[] = [];
  const note = (...words: unknown[]) => {
    log.push(words.join(' '));
    return errno;
  };
  const image: Image = {
    sizeBytes: 1_048_576,
    readOnly: false,
    read: (offset, length, _target, at) => note('read', offset, length, at),
    write: (offset, length, _source, at, durable) => note('write', offset, length, at, durable),
    zero: (offset, length, ways, durable) => note('zero', offset, length, ways, durable),
    trim: (offset, length, durable) => note('trim', offset, length, durable),
    status: (offset, length) => note('status', offset, length),
    cache: (offset, length) => note('cache', offset, length),
    mayHaveHoles: true,
    findPlace: (offset, length) => note('findPlace', offset, length) === 0,
    letGoPlaces: () => void note('letGoPlaces'),
    relax: () => void note('relax'),
    readIntoPipe: (offset, length, fd) => note('readIntoPipe', offset, length, fd),
    lendsPages: true,
    takeBackPages: () => void note('takeBackPages'),
    beginsWrites: true,
    beginWrite: (offset, length, _source, at) => note('beginWrite', offset, length, at),
    begunWritesFd: 7,
    takeWrites: (waitFor) => void note('takeWrites', waitFor),
    isDirect: true,
    flush: () => note('flush'),
    beginFlush: () => note('beginFlush') === 0,
    begunFlushFd: 77,
    isFlushDone: true,
    finishFlush: () => note('finishFlush'),
    close: () => void note('close'),
  };
  return { image, log };
}

const bytes = Buffer.alloc(1024, 1);

/** Every call once, each with an offset of its own. */
function callAll(image: Image): number[] {
  const answers = [
    image.read(1, 10, bytes, 5),
    image.write(2, 10, bytes, 5, false),
    image.write(3, 10, bytes, 5, true),
    image.zero(4, 10, ZERO_MAY_PUNCH | ZERO_FAST, false),
    image.zero(5, 10, 0, true),
    image.trim(6, 10, false),
    image.trim(7, 10, true),
    image.status(8, 10, emptyExtent()),
    image.cache(9, 10),
    image.flush(),
  ];
  image.close();
  return answers;
}

const passedOn = [
  'read 1 10 5',
  'write 2 10 5 false',
  'write 3 10 5 true',
  'zero 4 10 3 false',
  'zero 5 10 0 true',
  'trim 6 10 false',
  'trim 7 10 true',
  'status 8 10',
  'cache 9 10',
  'flush',
  'close',
];

describe.each([
  [
    'writethrough: every change is durable',
    WritethroughImage,
    passedOn.map((call) => call.replace('false', 'true')),
    0,
  ],
  [
    'unsafe: nothing is durable, and a flush is answered at once',
    UnsafeImage,
    passedOn.map((call) => call.replace('true', 'false')).filter((call) => call !== 'flush'),
    1,
  ],
  [
    'discard ignored: nothing is trimmed, and what is zeroed stays allocated',
    DiscardIgnoredImage,
    passedOn.map((call) => call.replace('zero 4 10 3', 'zero 4 10 2')).filter((call) => !call.startsWith('trim')),
    2,
  ],
])('%s', (_, Filter, expected, answeredByItself) => {
  it('is all that differs', () => {
    const { image, log } = recorder();
    const filter = new Filter(image);
    expect(callAll(filter)).toEqual(new Array(10).fill(0));
    expect(log).toEqual(expected);
    expect([filter.sizeBytes, filter.readOnly]).toEqual([1_048_576, false]);
  });

  it('hides no error', () => {
    const failures = callAll(new Filter(recorder(EDOM).image)).filter((errno) => errno === EDOM);
    expect(failures.length).toBe(10 - answeredByItself);
  });
});

describe('writes of zeroes', () => {
  const zeroes = Buffer.alloc(300_000);

  it.each([0, ZERO_MAY_PUNCH])('become zeroings with the ways %i, and as durable', (ways) => {
    const { image, log } = recorder();
    const filter = new DetectZeroesImage(image, ways);
    for (const [length, durable] of [
      [1, false],
      [4096, true],
      [65_536, false],
      [65_537, false],
      [262_144, true],
    ] as const) {
      expect(filter.write(512, length, zeroes, 7, durable)).toBe(0);
      expect(log.pop()).toBe(`zero 512 ${length} ${ways} ${durable}`);
    }
    expect(log).toEqual([]);
  });

  it('are writes if one byte is another, wherever it stands', () => {
    const { image, log } = recorder();
    const filter = new DetectZeroesImage(image, 0);
    for (const length of [1, 4096, 65_537, 262_144]) {
      for (const place of new Set([0, Math.floor(length / 2), Math.min(65_536, length - 1), length - 1])) {
        const data = Buffer.alloc(length + 20);
        data[10 + place] = 1;
        filter.write(0, length, data, 10, false);
        expect(log.pop()).toBe(`write 0 ${length} 10 false`);
      }
      // What lies around the data does not count.
      const data = Buffer.alloc(length + 20, 1).fill(0, 10, 10 + length);
      filter.write(0, length, data, 10, false);
      expect(log.pop()).toBe(`zero 0 ${length} 0 false`);
    }
  });

  it('answer what the zeroing answers, and all else is passed on', () => {
    expect(new DetectZeroesImage(recorder(EIO).image, 0).write(0, 512, zeroes, 0, false)).toBe(EIO);
    const { image, log } = recorder();
    callAll(new DetectZeroesImage(image, ZERO_MAY_PUNCH));
    expect(log).toEqual(passedOn);
  });
});

describe('a write that is begun beside others', () => {
  const zeroes = Buffer.alloc(4096);
  const begun = (filter: Image, source = bytes, offset = 4096) =>
    filter.beginsWrites ? filter.beginWrite(offset, 512, source, 5) : NOT_BEGUN;

  it.each([WritethroughImage, UnsafeImage])('is none where %o has its own way to write', (Filter) => {
    const { image, log } = recorder();
    expect(begun(new Filter(image))).toBe(NOT_BEGUN);
    expect(log).toEqual([]);
  });

  it('is passed on where the filter has nothing to do with it', () => {
    const { image, log } = recorder();
    expect(begun(new DiscardIgnoredImage(image))).toBe(0);
    expect(begun(new DetectZeroesImage(image, 0))).toBe(0);
    expect(begun(new DetectZeroesImage(image, 0), zeroes)).toBe(NOT_BEGUN);
    const guessed = () => new GuessedRawImage(image, { shared: newSharedFields(), fileBytes: image.sizeBytes });
    expect(begun(guessed())).toBe(0);
    expect(begun(guessed(), bytes, 0)).toBe(NOT_BEGUN);
    expect(begun(guessed(), bytes, image.sizeBytes - 512)).toBe(NOT_BEGUN);
    expect(log).toEqual(new Array(3).fill('beginWrite 4096 512 5'));
  });

  it('is finished by the image below', () => {
    const { image, log } = recorder();
    const filter = new DetectZeroesImage(new DiscardIgnoredImage(image), 0);
    filter.takeWrites(3, () => {});
    expect([filter.begunWritesFd, filter.isDirect]).toEqual([7, true]);
    expect(log).toEqual(['takeWrites 3']);
  });
});
