import type { ImageDescription } from '../image/describe-image.js';
import { printable } from '../image/file-name.js';
import { type Facts, qcow2Facts, type Snapshots, snapshotsAsJson, snapshotsAsText } from './qcow2-report.js';
import { sizeInWords } from './sizes.js';

/** A fact of an image, as qemu-img info names it. */
interface ImageFact {
  readonly key: string;
  /** Absent: it is in JSON only. */
  readonly label?: string;
  /** Absent where an image has nothing of the kind. */
  readonly value: (image: ImageDescription) => string | number | boolean | Snapshots | Facts | undefined;
  /** For a text, where it is not the value itself. */
  readonly words?: (image: ImageDescription) => string | undefined;
}

/** In the order of the text: what more there is to tell of a format is one more row. */
const FACTS: readonly ImageFact[] = [
  { label: 'image: ', key: 'filename', value: ({ path }) => path },
  { label: 'file format: ', key: 'format', value: ({ formatName }) => formatName },
  {
    label: 'virtual size: ',
    key: 'virtual-size',
    value: ({ virtualSizeBytes }) => virtualSizeBytes,
    words: ({ virtualSizeBytes }) => `${sizeInWords(virtualSizeBytes)} (${virtualSizeBytes} bytes)`,
  },
  {
    label: 'disk size: ',
    key: 'actual-size',
    value: ({ allocatedBytes }) => allocatedBytes,
    words: ({ allocatedBytes }) => sizeInWords(allocatedBytes),
  },
  {
    label: 'cluster_size: ',
    key: 'cluster-size',
    value: ({ qcow2 }) => (qcow2 === undefined ? undefined : 2 ** qcow2.header.clusterBits),
  },
  {
    label: 'cleanly shut down: ',
    key: 'dirty-flag',
    value: ({ isDirty }) => isDirty,
    words: ({ isDirty }) => (isDirty ? 'no' : undefined),
  },
  {
    label: 'backing file: ',
    key: 'backing-filename',
    value: ({ backing }) => backing?.name,
    words: ({ backing }) => {
      if (backing === undefined) return undefined;
      const [name, path] = [printable(backing.name), printable(backing.path)];
      return name === path ? name : `${name} (actual path: ${path})`;
    },
  },
  { key: 'full-backing-filename', value: ({ backing }) => backing?.path },
  { label: 'backing file format: ', key: 'backing-filename-format', value: ({ backing }) => backing?.format },
  {
    label: 'Snapshot list:',
    key: 'snapshots',
    value: ({ qcow2 }) => (qcow2?.snapshots.length ? snapshotsAsJson(qcow2.snapshots) : undefined),
    words: ({ qcow2 }) => qcow2 && snapshotsAsText(qcow2.snapshots),
  },
  {
    label: 'Format specific information:',
    key: 'format-specific',
    value: ({ formatName, qcow2 }) => qcow2 && { type: formatName, data: qcow2Facts(qcow2) },
    words: ({ qcow2 }) => qcow2 && factsAsText(qcow2Facts(qcow2), '    '),
  },
];

/** An empty line between two images. */
export function imagesAsText(images: readonly ImageDescription[]): string {
  return images.map(imageAsText).join('\n');
}

/** A list where a list was asked for, else the one image. */
export function imagesAsJson(images: readonly ImageDescription[], asList: boolean): string {
  const described = images.map((image) => Object.fromEntries(FACTS.map(({ key, value }) => [key, value(image)])));
  return `${JSON.stringify(asList ? described : described[0], null, 4)}\n`;
}

function imageAsText(image: ImageDescription): string {
  const lines = FACTS.flatMap(({ label, value, words }) => {
    const plain = value(image);
    if (label === undefined || plain === undefined) return [];
    const text = words === undefined ? String(plain) : words(image);
    return text === undefined ? [] : [`${label}${shown(text)}\n`];
  });
  return lines.join('');
}

/** Names stand in images, whose makers may be hostile; our own text has no other control characters than ends of lines. */
function shown(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

/** As qemu-img shows nested facts, each in a line, or in lines of its own below it. */
function factsAsText(facts: Facts | readonly (Facts | string)[], indent: string): string {
  const lines = Object.entries(facts).map(([key, value]) => {
    const name = Array.isArray(facts) ? `[${key}]` : key.replaceAll('-', ' ');
    const isNested = typeof value === 'object' && value !== null;
    const text = isNested ? factsAsText(value as Facts, `${indent}    `) : ` ${String(value).replaceAll('\n', '?')}`;
    return `\n${indent}${name}:${text}`;
  });
  return lines.join('');
}
