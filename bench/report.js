// What a run says at its end, on the terminal and in bench/results/.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { limitTable } from './limits.js';
import { plot } from './plot.js';
import { caseTable, cpuTable, verdict } from './table.js';

/**
 * @typedef {object} Report
 * @property {Record<string, string>} versions
 * @property {{ rounds: number, seconds: number, sizeBytes: number, checks: boolean }} options
 * @property {readonly import('./results.js').CaseResult[]} results
 * @property {readonly import('./limits.js').Measured[]} measured
 */

/** @param {Record<string, string>} versions */
export function versionLines(versions) {
  return Object.entries(versions)
    .map(([name, value]) => `${name.padEnd(18)} ${value}`)
    .join('\n');
}

const UNCHECKED =
  'with --no-checks: nothing that was read or written was compared, so that none of these figures counts';

/** @param {Report} report */
export function reportText({ results, measured, options }) {
  const parts = [caseTable(results), cpuTable(results)];
  if (measured.length > 0) parts.push(limitTable(measured));
  const judgement = verdict(results, measured);
  return [...parts, options.checks ? judgement : `${judgement}\n${UNCHECKED}`].join('\n\n');
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
  const unchecked = options.checks ? '' : ', bytes not compared';
  const how = `${options.rounds} rounds of ${options.seconds} s, node ${versions.node}, Linux ${versions.kernel}, ${versions.cores} cores${unchecked}`;
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
