import type { ImageDescription } from '../image/describe-image.js';
import { sizeInWords } from './sizes.js';

/** A fact of an image, as qemu-img info names it. */
interface ImageFact {
  readonly key: string;
  /** Absent: it is in JSON only. */
  readonly label?: string;
  /** Absent where an image has nothing of the kind. */
  readonly value: (image: ImageDescription) => string | number | boolean | undefined;
  /** For a text, where it is not the value itself. */
  readonly words?: (image: ImageDescription) => string;
}

/** In the order of the text: what more there is to tell of a format is one more row. */
const FACTS: readonly ImageFact[] = [
  { label: 'image', key: 'filename', value: ({ path }) => path },
  { label: 'file format', key: 'format', value: ({ formatName }) => formatName },
  {
    label: 'virtual size',
    key: 'virtual-size',
    value: ({ virtualSizeBytes }) => virtualSizeBytes,
    words: ({ virtualSizeBytes }) => `${sizeInWords(virtualSizeBytes)} (${virtualSizeBytes} bytes)`,
  },
  {
    label: 'disk size',
    key: 'actual-size',
    value: ({ allocatedBytes }) => allocatedBytes,
    words: ({ allocatedBytes }) => sizeInWords(allocatedBytes),
  },
  { key: 'dirty-flag', value: ({ isDirty }) => isDirty },
];

export function imageAsText(image: ImageDescription): string {
  const lines = FACTS.flatMap(({ label, value, words }) => {
    const plain = value(image);
    if (label === undefined || plain === undefined) return [];
    return [`${label}: ${words?.(image) ?? plain}\n`];
  });
  return lines.join('');
}

export function imageAsJson(image: ImageDescription): string {
  const facts = Object.fromEntries(FACTS.map(({ key, value }) => [key, value(image)]));
  return `${JSON.stringify(facts, null, 4)}\n`;
}
