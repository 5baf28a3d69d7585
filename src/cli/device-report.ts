import { CONNECT_LIMIT_MS } from '../attach/connect-limit.js';
import type { AttachedDevice } from '../attach/devices.js';
import { printableText } from '../protocol/text.js';
import { flagNames } from './export-report.js';
import { sizeInWords } from './sizes.js';

type Fact = string | number | boolean | null | readonly string[];

/** What 'ls' shows of a device: the heading of its column, the key in JSON, and how it is written. One table for both. */
const COLUMNS: readonly {
  readonly heading: string;
  readonly key: string;
  readonly fact: (device: AttachedDevice) => Fact | undefined;
  readonly text?: (device: AttachedDevice) => string;
}[] = [
  { heading: 'DEVICE', key: 'device', fact: ({ device }) => device },
  {
    heading: 'SIZE',
    key: 'sizeBytes',
    fact: ({ sizeBytes }) => sizeBytes,
    text: ({ sizeBytes }) => sizeInWords(sizeBytes).replace(' ', ''),
  },
  { heading: 'STATE', key: 'state', fact: ({ state }) => state },
  {
    heading: 'MODE',
    key: 'readOnly',
    fact: ({ readOnly }) => readOnly,
    text: ({ readOnly }) => (readOnly ? 'ro' : 'rw'),
  },
  { heading: 'SOURCE', key: 'source', fact: ({ source }) => source },
  { heading: 'FORMAT', key: 'format', fact: ({ format }) => format },
  { heading: 'CONNECTIONS', key: 'connections', fact: ({ connections }) => connections },
  { heading: 'API', key: 'kernelApi', fact: ({ kernelApi }) => kernelApi },
  { heading: 'PID', key: 'pid', fact: ({ pid }) => pid },
  { heading: 'MOUNTS', key: 'mounts', fact: ({ mounts }) => mounts },
];

/** A line for each device under a line of headings; nothing without devices. */
export function devicesAsText(devices: readonly AttachedDevice[]): string {
  if (devices.length === 0) return '';
  const lines = [
    COLUMNS.map(({ heading }) => heading),
    ...devices.map((device) => COLUMNS.map((c) => cell(c, device))),
  ];
  const widths = COLUMNS.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)));
  return lines
    .map(
      (line) =>
        `${line
          .map((word, index) => word.padEnd(widths[index] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

export function devicesAsJson(devices: readonly AttachedDevice[]): string {
  return `${JSON.stringify(devices.map(factsOf), null, 2)}\n`;
}

/** All of it, a line each. */
export function deviceAsText(device: AttachedDevice): string {
  const facts = { ...factsOf(device), ...detailsOf(device) };
  return Object.entries(facts)
    .map(([key, fact]) => `${key}: ${fact === null ? (NOTHING[key] ?? '-') : factInWords(fact)}\n`)
    .join('');
}

/** What no value means, where it is not that there is nothing to tell. */
const NOTHING: Readonly<Record<string, string>> = { writeErrors: 'nobody counts them', deadTimeoutSeconds: 'none' };

export function deviceAsJson(device: AttachedDevice): string {
  return `${JSON.stringify({ ...factsOf(device), ...detailsOf(device) }, null, 2)}\n`;
}

function factsOf(device: AttachedDevice): Readonly<Record<string, Fact>> {
  return Object.fromEntries(COLUMNS.map(({ key, fact }) => [key, fact(device) ?? null]));
}

/** Limits in seconds; null is none, 0 is no time at all but for requests, which then may take any. */
function detailsOf({ record, link, counts, writeErrors }: AttachedDevice): Readonly<Record<string, Fact>> {
  const own = record && {
    blockSizeBytes: record.blockSizeBytes,
    flags: flagNames(record.flags),
    connectLimitSeconds: record.kind === 'remote' ? CONNECT_LIMIT_MS / 1_000 : null,
    requestTimeoutSeconds: record.requestTimeoutSeconds,
    deadTimeoutSeconds: record.deadTimeoutSeconds ?? null,
    uptimeSeconds: Math.max(0, Math.floor((Date.now() - record.attachedAtMs) / 1_000)),
  };
  const { inFlight, completed } = counts;
  return {
    ...own,
    ...(link && { stateSeconds: link.seconds, reconnects: link.reconnects }),
    requestsUnderWay: inFlight,
    requestsDone: completed,
    writeErrors: writeErrors ?? null,
    ...(record?.countedSinceMs && { writeErrorsUnknownBefore: new Date(record.countedSinceMs).toISOString() }),
  };
}

function cell(column: (typeof COLUMNS)[number], device: AttachedDevice): string {
  return column.text?.(device) ?? factInWords(column.fact(device) ?? null);
}

function factInWords(fact: Fact): string {
  if (fact === null || (typeof fact === 'object' && fact.length === 0)) return '-';
  return printableText(typeof fact === 'object' ? fact.join(',') : String(fact));
}
