// Results as a text that people read.

/**
 * @typedef {import('./results.js').CaseResult} CaseResult
 * @typedef {import('./results.js').Comparison} Comparison
 */

/**
 * The table of the cases: our speed and cost, then for each group of peers ours divided by theirs, with the spread over
 * the rounds, and the target with its verdict where there is one. Modes that have a target each have a line each.
 * @param {readonly CaseResult[]} results
 */
export function caseTable(results) {
  const groups = groupsOf(results.flatMap(({ speed }) => speed));
  const head = [
    'case',
    'tsnbd, 1/s',
    '',
    'CPU, µs',
    'p99, µs',
    'client',
    ...groups.flatMap((group) => [`/ ${group}`, '', '']),
  ];
  const rows = results.flatMap(({ name, figures: [us], speed }) => {
    const own = [
      name,
      ...(us === undefined ? ['', ''] : rate(us.rate)),
      us?.cpuMicros === undefined ? '' : us.cpuMicros.toFixed(1),
      us?.p99Micros === undefined ? '' : count(us.p99Micros),
      us?.clientCores === undefined ? '' : us.clientCores.toFixed(2),
    ];
    return comparisonLines(own, speed, groups);
  });
  return text([head, ...rows]);
}

/**
 * The same for processor time a request: ours divided by theirs, less is better.
 * @param {readonly CaseResult[]} results
 */
export function cpuTable(results) {
  const measured = results.filter(({ cpu }) => cpu.length > 0);
  const groups = groupsOf(measured.flatMap(({ cpu }) => cpu));
  const head = ['CPU a request, ours / theirs', ...groups.flatMap((group) => [`/ ${group}`, '', ''])];
  return text([head, ...measured.flatMap(({ name, cpu }) => comparisonLines([name], cpu, groups))]);
}

/**
 * How many targets and limits there are, and which were missed.
 * @param {readonly CaseResult[]} results
 * @param {readonly import('./limits.js').Measured[]} measured
 */
export function verdict(results, measured) {
  const ratios = results.flatMap(({ name, speed, cpu }) =>
    [...speed.map((one) => ({ what: name, ...one })), ...cpu.map((one) => ({ what: `${name}, CPU`, ...one }))].flatMap(
      ({ what, peer, ratio, target, met, bound }) =>
        target === undefined
          ? []
          : [{ met, text: `${what} / ${peer}: ${ratio.median.toFixed(2)}, not ${target}${ofBound(bound)}` }],
    ),
  );
  const limits = measured.flatMap(({ what, unit, value, limit }) =>
    limit === undefined
      ? []
      : [{ met: value.median <= limit, text: `${what}: ${value.median.toFixed(1)} ${unit}, not ${limit.toFixed(1)}` }],
  );
  const judged = [...ratios, ...limits];
  const missed = judged.filter(({ met }) => !met);
  return [
    `${judged.length - missed.length} of ${judged.length} targets met${missed.length > 0 ? '; missed:' : ''}`,
    ...missed.map((one) => `  ${one.text}`),
  ].join('\n');
}

/** @param {number | undefined} bound */
function ofBound(bound) {
  return bound === undefined ? '' : ` (the bound: ${bound.toFixed(2)})`;
}

/**
 * Columns side by side: the first to the left, the others to the right.
 * @param {readonly (readonly string[])[]} rows
 */
export function text(rows) {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (/** @type {readonly string[]} */ row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)));
  return rows.map((row) => line(row).join('  ').trimEnd()).join('\n');
}

/** @param {import('./statistics.js').Spread} value */
function rate({ median, lowest, highest }) {
  return [count(median), lowest === highest ? '' : `(${count(lowest)} to ${count(highest)})`];
}

/**
 * The cells of a case, and in further lines below what else it was compared with.
 * @param {readonly string[]} own
 * @param {readonly Comparison[]} comparisons
 * @param {readonly string[]} groups
 */
function comparisonLines(own, comparisons, groups) {
  const ofGroups = groups.map((group) => comparisons.filter(({ peer }) => groupOf(peer) === group));
  const lines = Math.max(1, ...ofGroups.map(({ length }) => length));
  return Array.from({ length: lines }, (_, line) => [
    ...(line === 0 ? own : own.map(() => '')),
    ...ofGroups.flatMap((ones, index) => comparison(ones[line], groups[index] ?? '')),
  ]);
}

/**
 * Three cells: the ratio (with the mode that was compared, if it is not the default), its spread, the verdict.
 * @param {Comparison | undefined} one
 * @param {string} group
 */
function comparison(one, group) {
  if (one === undefined) return ['', '', ''];
  const { peer, ratio, target, met } = one;
  return [
    `${peer.slice(group.length)} ${ratio.median.toFixed(2)}`.trim(),
    ratio.lowest === ratio.highest ? '' : `(${ratio.lowest.toFixed(2)} to ${ratio.highest.toFixed(2)})`,
    target === undefined ? '' : `${met ? 'meets ' : 'MISSES'} ${target.toFixed(2)}`,
  ];
}

/** The modes of one program share their columns. @param {readonly Comparison[]} comparisons */
function groupsOf(comparisons) {
  return [...new Set(comparisons.map(({ peer }) => groupOf(peer)))];
}

/** @param {string} peer */
function groupOf(peer) {
  return peer.split(' ')[0] ?? peer;
}

/** @param {number} value */
function count(value) {
  return Math.round(value).toLocaleString('en-US');
}
