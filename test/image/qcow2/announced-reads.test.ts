import { writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, expect, it } from 'vitest';
import { invariant } from '#tsnbd/base/invariant.js';
import { type Image, ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { BACKING_FORMAT, type Cluster, DATA_FILE_NAME, qcow2Bytes, type Wish } from './qcow2-bytes.js';

const inFolder = useTemporaryFolder();
const CLUSTERS = 6;
/** Announced reads are a sixteenth of a cluster: two subclusters. */
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

it.each(['plain', 'subclusters', 'data file'])(
  'a read that was announced, and found zeroes instead, leaves nothing to a later one (%s)',
  (kind) => {
    const { a, b, clusterBytes } = twoOf(kind);
    const length = clusterBytes / PARTS;
    const bytes = (byte: number) => new Uint8Array(clusterBytes).fill(byte);
    const got = new Uint8Array(length);
    const read = () => {
      expect(a.read(0, length, got, 0)).toBe(0);
      return got[0];
    };
    expect(b.write(0, clusterBytes, bytes(5), 0, false)).toBe(0);
    a.expectRead(0, length);
    a.startExpected();
    expect(b.zero(0, clusterBytes, 0, false)).toBe(0);
    expect([0, 5]).toContain(read());
    expect(b.write(0, clusterBytes, bytes(9), 0, false)).toBe(0);
    expect(read()).toBe(9);
  },
);

const step = fc.record({
  act: fc.constantFrom('announce', 'announce', 'read', 'read', 'write', 'write', 'keep', 'punch', 'trim', 'flush'),
  cluster: fc.constantFrom(0, 0, 0, 2, 5),
  part: fc.constantFrom(0, 0, 0, 1),
});

it.each(['plain', 'version 2', 'subclusters', 'backing', 'data file'])(
  'a read shows nothing older than its announcement, whatever another worker does (%s)',
  (kind) => {
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
        // What each cluster has been, and reads on their way with how many of these were over when they were announced.
        const pasts = Array.from({ length: CLUSTERS }, (_, cluster) => [byteOf(b, cluster * clusterBytes)]);
        const announced: { cluster: number; part: number; from: number }[] = [];
        const check = (cluster: number, part: number, from: number) => {
          expect(pasts[cluster]?.slice(from)).toContain(byteOf(a, cluster * clusterBytes + part * length));
        };
        let last = 0;
        for (const { act, cluster, part } of steps) {
          const at = cluster * clusterBytes;
          const past = pasts[cluster] ?? [];
          if (act === 'announce') {
            if (!a.expectRead(at + part * length, length)) continue;
            a.startExpected();
            announced.push({ cluster, part, from: past.length - 1 });
          } else if (act === 'read') {
            const first = announced.shift();
            if (first !== undefined) check(first.cluster, first.part, first.from);
            else check(cluster, part, past.length - 1);
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
        for (const { cluster, part, from } of announced) check(cluster, part, from);
        for (let cluster = 0; cluster < CLUSTERS; cluster += 1) check(cluster, 0, (pasts[cluster]?.length ?? 0) - 1);
        for (const undoStep of undo.splice(0).reverse()) undoStep();
      }),
      { numRuns: 30, seed: 5 },
    );
  },
);
