import type { CheckResult } from '../image/qcow2/check-qcow2.js';

const HUNDRED = 100;

/** In qemu-img's words, which scripts read. */
export function checkAsText(result: CheckResult): string {
  const { corruptions, leaks, checkErrors, corruptionsFixed, leaksFixed, imageEndBytes } = result;
  const parts: string[] = [];
  if (corruptionsFixed + leaksFixed > 0) {
    parts.push(
      `The following inconsistencies were found and repaired:\n\n    ${leaksFixed} leaked clusters\n    ${corruptionsFixed} corruptions\n\nDouble checking the fixed image now...\n`,
    );
  }
  if (corruptions + leaks + checkErrors === 0) parts.push('No errors were found on the image.\n');
  if (corruptions > 0) {
    parts.push(
      `\n${corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n`,
    );
  }
  if (leaks > 0) {
    parts.push(
      `\n${leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n`,
    );
  }
  if (checkErrors > 0) parts.push(`\n${checkErrors} internal errors have occurred during the check.\n`);
  return `${parts.join('')}${clustersInWords(result)}Image end offset: ${imageEndBytes}\n`;
}

/** What is 0 is left out where qemu-img does so. */
export function checkAsJson(path: string, result: CheckResult): string {
  const { checkErrors, totalClusters, imageEndBytes } = result;
  const unlessZero = (count: number) => (count === 0 ? undefined : count);
  const facts = {
    'image-end-offset': imageEndBytes,
    'total-clusters': unlessZero(totalClusters),
    'check-errors': checkErrors,
    corruptions: unlessZero(result.corruptions),
    leaks: unlessZero(result.leaks),
    'corruptions-fixed': unlessZero(result.corruptionsFixed),
    'leaks-fixed': unlessZero(result.leaksFixed),
    'allocated-clusters': unlessZero(result.allocatedClusters),
    'fragmented-clusters': unlessZero(result.fragmentedClusters),
    'compressed-clusters': unlessZero(result.compressedClusters),
    filename: path,
    format: 'qcow2',
  };
  return `${JSON.stringify(facts, null, 4)}\n`;
}

function clustersInWords(result: CheckResult): string {
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters } = result;
  if (totalClusters === 0 || allocatedClusters === 0) return '';
  const share = (part: number, whole: number) => `${((part * HUNDRED) / whole).toFixed(2)}%`;
  const allocated = `${allocatedClusters}/${totalClusters} = ${share(allocatedClusters, totalClusters)} allocated`;
  const fragmented = `${share(fragmentedClusters, allocatedClusters)} fragmented`;
  return `${allocated}, ${fragmented}, ${share(compressedClusters, allocatedClusters)} compressed clusters\n`;
}
