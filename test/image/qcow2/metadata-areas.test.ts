import fc from 'fast-check';
import { expect, it } from 'vitest';
import { L2_TABLE, MetadataAreas, newAreasMemory } from '#tsnbd/image/qcow2/metadata-areas.js';

const area = fc.tuple(fc.nat(60), fc.nat(5));

it('a cluster is fixed if one of the areas has it, however they overlap', () => {
  const memory = newAreasMemory(1);
  fc.assert(
    fc.property(
      fc.array(area, { maxLength: 8 }),
      fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 5 })),
      (fixed, [first, count]) => {
        const areas = new MetadataAreas(memory);
        areas.fix(fixed);
        const isThere = (cluster: number) =>
          fixed.some(([from, clusters]) => cluster >= from && cluster < from + clusters);
        const asked = Array.from({ length: count }, (_, index) => first + index);
        expect(areas.hasFixed(first, count)).toBe(asked.some(isThere));
      },
    ),
  );
});

it('65,536 snapshots are looked through no slower than one', () => {
  const areas = new MetadataAreas(newAreasMemory(1));
  areas.fix(Array.from({ length: 65_536 }, (_, index) => [2 * index, 1] as const));
  let found = 0;
  for (let cluster = 0; cluster < 1_000_000; cluster += 1) if (areas.hasFixed(cluster, 1)) found += 1;
  expect(found).toBe(65_536);
});

it('tables in clusters that somebody chose are found as fast as others', () => {
  const areas = new MetadataAreas(newAreasMemory(200_000));
  const chosen = (index: number) => (index % 200) + 1_000 + Math.floor(index / 200) * 2 ** 32;
  for (let index = 0; index < 200_000; index += 1) areas.add(chosen(index), L2_TABLE);
  let found = 0;
  for (let index = 0; index < 200_000; index += 1) if (areas.has(chosen(index), L2_TABLE)) found += 1;
  expect(found).toBe(200_000);
  expect(areas.hasRoom(200_000)).toBe(false);
}, 10_000);
