// What a run says at its end, on the terminal and in bench/results/.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { limitTable } from './limits.js';
import { plot } from './plot.js';
import { caseTable, cpuTable, verdict } from './table.js';

/**
 * @typedef {object} Report
 * @property {Record<string, string>} versions
 * @property {{ rounds: number, seconds: number, sizeBytes: number }} options
 * @property {readonly import('./results.js').CaseResult[]} results
 * @property {readonly import('./limits.js').Measured[]} measured
 */

/** @param {Record<string, string>} versions */
export function versionLines(versions) {
  return Object.entries(versions)
    .map(([name, value]) => `${name.padEnd(18)} ${value}`)
    .join('\n');
}

/** @param {Report} report */
export function reportText({ results, measured }) {
  const parts = [caseTable(results), cpuTable(results)];
  if (measured.length > 0) parts.push(limitTable(measured));
  return [...parts, verdict(results, measured)].join('\n\n');
}

/**
 * @param {Report} report
 * @param {string} folder
 * @param {string} name without an ending
 * @returns {string[]} the paths written
 */
export function writeReport(report, folder, name) {
  mkdirSync(folder, { recursive: true });
  const { versions, options, results } = report;
  const how = `${options.rounds} rounds of ${options.seconds} s, node ${versions.node}, Linux ${versions.kernel}, ${versions.cores} cores`;
  /** @type {[string, string][]} */
  const files = [
    ['txt', `${versionLines(versions)}\n\n${reportText(report)}\n`],
    ['json', `${JSON.stringify(report, null, 2)}\n`],
    ['svg', plot(results, how)],
  ];
  return files.map(([ending, content]) => {
    const path = join(folder, `${name}.${ending}`);
    writeFileSync(path, content);
    return path;
  });
}
