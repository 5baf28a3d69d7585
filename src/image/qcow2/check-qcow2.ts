import { ImageError } from '../errors.js';
import { lookedAtAgain, type OpenFile } from '../open-file.js';
import { Census } from './census.js';
import { Findings, type OnFinding } from './check-findings.js';
import {
  type CheckedImage,
  checkedImage,
  type OnProgress,
  readTable,
  syncTables,
  writeTable,
} from './checked-image.js';
import { checkCopiedFlags } from './copied-flags.js';
import { INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY } from './features.js';
import { readHeader } from './header.js';
import { compareRefcounts, newCounted, ONE, type Repair } from './refcount-compare.js';
import { rebuildRefcounts } from './refcount-rebuild.js';

/** Where the header has its incompatible features, the byte with the last of them. */
const INCOMPATIBLE_AT = 72;
const INCOMPATIBLE_BYTES = 8;

/** What a check has come to; after a repair, what is left. */
export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** Behind the last cluster that is used or counted. */
  readonly imageEndBytes: number;
  /** Of the disk. */
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly compressedClusters: number;
  readonly fragmentedClusters: number;
}

/** Who waits for a check. */
export interface CheckWatch {
  readonly onFinding: OnFinding;
  readonly onProgress: OnProgress;
}

/** Looks through an image, and changes nothing. @throws ImageError where it cannot be read */
export function checkQcow2(path: string, file: OpenFile, watch: CheckWatch): CheckResult {
  const { isRebuilt: _, ...result } = checked(checkedImage(path, file, readHeader(path, file)), undefined, watch);
  return result;
}

/**
 * Makes right what can be: refcounts that are too high, with 'all' also those that are too low, and what entries say of
 * them. Refcounts are on stable storage before the entries that rely on them, and the marks that the image is dirty or
 * corrupt go last, when a second look has found it to be neither. A cut at any point leaves no more wrong than there was.
 * With `onlySound` nothing is changed where a table makes no sense: what it pointed to would be given back.
 *
 * @throws ImageError where it cannot be read or written
 */
export function repairQcow2(
  path: string,
  file: OpenFile,
  repair: Repair,
  watch: CheckWatch,
  onlySound = false,
): CheckResult {
  const header = readHeader(path, file);
  const first = checked(checkedImage(path, file, header), repair, watch, onlySound);
  // What was written may have made the file longer.
  const grown = lookedAtAgain(file);
  const image = checkedImage(path, grown, readHeader(path, grown));
  const result = checkQcow2(path, grown, watch);
  if (result.corruptions === 0 && result.checkErrors === 0) clearMarks(image);
  const { corruptionsFixed, leaksFixed, isRebuilt } = first;
  if (!isRebuilt) return { ...result, corruptionsFixed, leaksFixed };
  return {
    ...result,
    corruptionsFixed: corruptionsFixed + Math.max(0, first.corruptions - result.corruptions),
    leaksFixed: Math.max(0, first.leaks - result.leaks),
  };
}

/** For an image that was left dirty, and is not repaired by merely being opened. */
export function leftDamaged(path: string): ImageError {
  const why = `${path} was not closed by its last writer, and what it says contradicts itself`;
  return new ImageError('damaged', `${why}; see: tsnbd check ${path}`);
}

function checked(
  image: CheckedImage,
  repair: Repair | undefined,
  { onFinding, onProgress }: CheckWatch,
  onlySound = false,
): CheckResult & { readonly isRebuilt: boolean } {
  // What is repaired is looked at again, and told then if it is still there.
  const findings = new Findings(repair === undefined ? onFinding : () => {});
  const census = new Census(image, findings, (done, total) => onProgress(done, 2 * total));
  if (onlySound && !census.isSound) throw leftDamaged(image.path);
  const { geometry, l2 } = census;
  let comparison = compareRefcounts(image, census, findings, undefined);
  let corruptionsFixed = 0;
  let leaksFixed = 0;
  const isRebuilt = repair === 'all' && comparison.needsRebuild;
  if (repair !== undefined && !comparison.needsRebuild) {
    comparison = compareRefcounts(image, census, new Findings(() => {}), repair);
    ({ corruptionsFixed, leaksFixed } = comparison);
  } else if (isRebuilt) {
    rebuildRefcounts(image, census);
    const { counts } = census.uses;
    const counted = newCounted(counts.length);
    for (let cluster = counts.next(0); cluster < counts.length; cluster = counts.next(cluster + 1))
      if (counts.get(cluster) === 1) counted.set(cluster, ONE);
    comparison = { ...comparison, counted };
  }
  const isRepaired = repair === 'all' || (repair === 'leaks' && findings.corruptions + findings.checkErrors === 0);
  if (isRepaired) syncTables(image);
  const onEntry: OnProgress = (done, total) => onProgress(total + done, 2 * total);
  corruptionsFixed += checkCopiedFlags(image, census, comparison.counted, findings, isRepaired, onEntry);
  if (repair !== undefined) syncTables(image);
  return {
    isRebuilt,
    corruptions: findings.corruptions,
    leaks: findings.leaks,
    checkErrors: findings.checkErrors,
    corruptionsFixed,
    leaksFixed,
    imageEndBytes: (comparison.lastCluster + 1) * geometry.clusterBytes,
    totalClusters: Math.ceil(geometry.sizeBytes / geometry.clusterBytes),
    allocatedClusters: l2.allocatedClusters,
    compressedClusters: l2.compressedClusters,
    fragmentedClusters: l2.fragmentedClusters,
  };
}

function clearMarks(image: CheckedImage): void {
  const { version, incompatible } = image.header;
  const marks = INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT;
  if (version === 2 || (incompatible & marks) === 0n) return;
  const features = new Uint8Array(INCOMPATIBLE_BYTES);
  readTable(image, INCOMPATIBLE_AT, features);
  const view = new DataView(features.buffer);
  view.setBigUint64(0, view.getBigUint64(0) & ~marks);
  writeTable(image, INCOMPATIBLE_AT, features);
  syncTables(image);
}
