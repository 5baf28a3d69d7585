import { readSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { emptyPlace, type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { BACKING_FORMAT, type Cluster, DATA_FILE_NAME, qcow2Bytes, type Wish } from './qcow2-bytes.js';

const inFolder = useTemporaryFolder();
const CLUSTERS = 6;
/** Places are looked for of a sixteenth of a cluster: two subclusters. */
const PARTS = 16;

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** Two workers of one image, by the name of its kind. */
function twoOf(kind: string): { a: Image; b: Image; clusterBytes: number } {
  const clusterBits = kind === 'subclusters' ? 14 : 12;
  const clusterBytes = 2 ** clusterBits;
  const data = (byte: number): Cluster => ({ kind: 'data', bytes: new Uint8Array(clusterBytes).fill(byte) });
  const compressed: Cluster = { kind: 'compressed', bytes: new Uint8Array(clusterBytes).fill(3) };
  const wishes: Record<string, Partial<Wish>> = {
    plain: {},
    'version 2': { version: 2 },
    subclusters: { incompatible: 16n },
    backing: { backing: 'base.raw', extensions: [[BACKING_FORMAT, Buffer.from('raw')]] },
    'data file': {
      incompatible: 4n,
      clusters: new Map(),
      extensions: [[DATA_FILE_NAME, Buffer.from(inFolder('data.raw'))]],
    },
  };
  writeFileSync(inFolder('base.raw'), Buffer.alloc(CLUSTERS * clusterBytes, 77));
  writeFileSync(inFolder('data.raw'), Buffer.alloc(CLUSTERS * clusterBytes));
  const { bytes } = qcow2Bytes({
    clusterBits,
    sizeBytes: CLUSTERS * clusterBytes,
    clusters: new Map([data(1), data(2), compressed].map((cluster, guest) => [guest, cluster])),
    ...wishes[kind],
  });
  const path = inFolder('disk.qcow2');
  writeFileSync(path, bytes);
  const opened = openImage(path, { readOnly: false });
  undo.push(() => opened.close());
  const [a, b] = [0, 1].map(() => imageFrom(opened.handle));
  invariant(a !== undefined && b !== undefined, 'two were made');
  undo.push(
    () => a.close(),
    () => b.close(),
  );
  return { a, b, clusterBytes };
}

const step = fc.record({
  act: fc.constantFrom('find', 'find', 'look', 'look', 'let go', 'write', 'write', 'keep', 'punch', 'trim', 'flush'),
  cluster: fc.constantFrom(0, 0, 0, 2, 5),
  part: fc.constantFrom(0, 0, 0, 1),
});

it.each(['plain', 'version 2', 'subclusters', 'backing', 'data file'])(
  'a place that was found has nothing else until it is let go, whatever another worker does (%s)',
  (kind) => {
    let looks = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 30, maxLength: 120 }), (steps) => {
        const { a, b, clusterBytes } = twoOf(kind);
        const length = clusterBytes / PARTS;
        const target = new Uint8Array(length);
        const byteOf = (image: Image, offsetBytes: number) => {
          expect(image.read(offsetBytes, length, target, 0)).toBe(0);
          expect(target.every((byte) => byte === target[0])).toBe(true);
          return target[0] ?? -1;
        };
        // What each cluster has been, and places with how many of these were over when they were found.
        const pasts = Array.from({ length: CLUSTERS }, (_, cluster) => [byteOf(b, cluster * clusterBytes)]);
        const found: { fd: number; offsetBytes: number; cluster: number; from: number }[] = [];
        const check = ({ fd, offsetBytes, cluster, from }: (typeof found)[number]) => {
          expect(readSync(fd, target, 0, length, offsetBytes)).toBe(length);
          looks += 1;
          for (const byte of target) expect(pasts[cluster]?.slice(from)).toContain(byte);
        };
        let last = 0;
        for (const { act, cluster, part } of steps) {
          const at = cluster * clusterBytes;
          const past = pasts[cluster] ?? [];
          if (act === 'find') {
            const place = emptyPlace();
            if (!a.findPlace(at + part * length, length, place)) continue;
            found.push({ ...place, cluster, from: past.length - 1 });
          } else if (act === 'look') for (const place of found) check(place);
          else if (act === 'let go') {
            a.letGoPlaces();
            found.length = 0;
          } else if (act === 'write') {
            last = (last + 1) % 256;
            expect(b.write(at, clusterBytes, new Uint8Array(clusterBytes).fill(last), 0, false)).toBe(0);
            past.push(last);
          } else if (act === 'keep' || act === 'punch') {
            expect(b.zero(at, clusterBytes, act === 'keep' ? 0 : ZERO_MAY_PUNCH, false)).toBe(0);
            past.push(0);
          } else if (act === 'trim') {
            expect(b.trim(at, clusterBytes, false)).toBe(0);
            past.push(byteOf(b, at));
          } else expect(b.flush()).toBe(0);
        }
        for (const place of found) check(place);
        for (const [cluster, past] of pasts.entries()) expect(byteOf(a, cluster * clusterBytes)).toBe(past.at(-1));
        for (const undoStep of undo.splice(0).reverse()) undoStep();
      }),
      { numRuns: 30, seed: 5 },
    );
    expect(looks).toBeGreaterThan(50);
  },
);
