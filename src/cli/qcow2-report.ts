import type { Qcow2Description } from '../image/qcow2/describe-qcow2.js';
import { sizeInWords } from './sizes.js';

/** As JSON has them. */
export interface Facts {
  readonly [key: string]: string | number | boolean | Facts | readonly (Facts | string)[];
}

export type Snapshots = readonly Facts[];

const NANOSECONDS = 1_000_000_000n;
const HEAD = ['ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT'];

/** What qemu-img tells of the format. */
export function qcow2Facts({ header, lazyRefcounts, bitmaps }: Qcow2Description): Facts {
  const { version, compression, isCorrupt, extendedL2, dataFileName, rawDataFile, refcountOrder } = header;
  const listed = bitmaps.map(({ name, granularityBytes, isInUse, isAuto }) => ({
    flags: [...(isInUse ? ['in-use'] : []), ...(isAuto ? ['auto'] : [])],
    name,
    granularity: granularityBytes,
  }));
  return {
    compat: version === 2 ? '0.10' : '1.1',
    'compression-type': compression,
    ...(version === 2 ? {} : { 'lazy-refcounts': lazyRefcounts }),
    ...(listed.length === 0 ? {} : { bitmaps: listed }),
    'refcount-bits': 2 ** refcountOrder,
    ...(dataFileName === undefined ? {} : { 'data-file': dataFileName, 'data-file-raw': rawDataFile }),
    ...(version === 2 ? {} : { corrupt: isCorrupt, 'extended-l2': extendedL2 }),
  };
}

export function snapshotsAsJson(snapshots: Qcow2Description['snapshots']): Snapshots {
  return snapshots.map((snapshot) => ({
    id: snapshot.id,
    name: snapshot.name,
    'vm-state-size': Number(snapshot.vmStateBytes),
    'date-sec': snapshot.takenSeconds,
    'date-nsec': snapshot.takenNanoseconds,
    'vm-clock-sec': Number(snapshot.guestNanoseconds / NANOSECONDS),
    'vm-clock-nsec': Number(snapshot.guestNanoseconds % NANOSECONDS),
    ...(snapshot.instructions === undefined ? {} : { icount: Number(snapshot.instructions) }),
  }));
}

export function snapshotsAsText(snapshots: Qcow2Description['snapshots']): string {
  const rows = snapshots.map((snapshot) => [
    snapshot.id.replaceAll('\n', '?'),
    snapshot.name.replaceAll('\n', '?'),
    sizeInWords(Number(snapshot.vmStateBytes)),
    dateInWords(snapshot.takenSeconds),
    clockInWords(snapshot.guestNanoseconds),
    String(snapshot.instructions ?? ''),
  ]);
  return [HEAD, ...rows]
    .map(
      ([id = '', name = '', size = '', date = '', clock = '', count = '']) =>
        `\n${id.padEnd(9)} ${name.padEnd(16)} ${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${count.padStart(11)}`,
    )
    .join('');
}

/** In the time zone of this machine. */
function dateInWords(seconds: number): string {
  const date = new Date(seconds * 1000);
  const day = [date.getFullYear(), twoDigits(date.getMonth() + 1), twoDigits(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(':')}`;
}

function clockInWords(nanoseconds: bigint): string {
  const seconds = Number(nanoseconds / NANOSECONDS);
  const milliseconds = Number((nanoseconds % NANOSECONDS) / 1_000_000n);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return `${parts.map(twoDigits).join(':')}.${String(milliseconds).padStart(3, '0')}`;
}

function twoDigits(number: number): string {
  return String(number).padStart(2, '0');
}
