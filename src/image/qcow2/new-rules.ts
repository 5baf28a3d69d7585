import { EXTENDED_CLUSTER_BITS_MIN, V2_REFCOUNT_BITS } from './header.js';
import type { NewQcow2 } from './new-layout.js';

interface Rule {
  readonly isBroken: (form: NewQcow2) => boolean;
  readonly why: string;
}

const needsVersion3 = (what: string, isWanted: (form: NewQcow2) => boolean): Rule => ({
  isBroken: (form) => form.version === 2 && isWanted(form),
  why: `${what} need compat=1.1`,
});

/** What does not go together in a new image. */
const RULES: readonly Rule[] = [
  needsVersion3('lazy refcounts (lazy_refcounts=on)', ({ lazyRefcounts }) => lazyRefcounts),
  needsVersion3(`refcounts of other than ${V2_REFCOUNT_BITS} bits`, (form) => form.refcountBits !== V2_REFCOUNT_BITS),
  needsVersion3('subclusters (extended_l2=on)', ({ extendedL2 }) => extendedL2),
  needsVersion3('compression types other than zlib', ({ compression }) => compression !== 'zlib'),
  needsVersion3('external data files', ({ dataFile }) => dataFile !== undefined),
  {
    isBroken: ({ extendedL2, clusterBytes }) => extendedL2 && clusterBytes < 2 ** EXTENDED_CLUSTER_BITS_MIN,
    why: `subclusters (extended_l2=on) need clusters of ${2 ** EXTENDED_CLUSTER_BITS_MIN} bytes at least`,
  },
  {
    isBroken: ({ dataFile, backing }) => dataFile?.isRaw === true && backing !== undefined,
    why: 'an image with a raw data file (data_file_raw=on) cannot have a backing file',
  },
  {
    isBroken: ({ backing, preallocation, extendedL2 }) =>
      backing !== undefined && preallocation !== 'off' && !extendedL2,
    why: 'an image with a backing file can only be preallocated with subclusters (extended_l2=on)',
  },
];

/** Why an image cannot be made so; absent where it can. */
export function contradictionIn(form: NewQcow2): string | undefined {
  return RULES.find(({ isBroken }) => isBroken(form))?.why;
}
