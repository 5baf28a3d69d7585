import type { OpenOptions } from '../image/open-image.js';
import { isNbdUri, type NbdTarget } from '../transport/uri.js';
import { UsageError } from './errors.js';
import { imageOptions } from './image-options.js';
import type { OptionTable, OptionValues } from './option-table.js';
import { fileName, nbdUri } from './option-values.js';
import type { Operands } from './parse.js';

/** What `info` and `map` look at: an image, or an export of a server. */
export type Source =
  | { readonly kind: 'export'; readonly target: NbdTarget }
  | {
      readonly kind: 'image';
      /** As it was typed. */
      readonly path: string;
      readonly format: OpenOptions['format'];
      readonly forceShare: boolean;
    };

export function sourceOptions<Mode extends string>(modes: readonly Mode[]) {
  const { format } = imageOptions(modes);
  return {
    format,
    'force-share': {
      short: 'U',
      modes,
      help: 'Look at an image although another program forbids it, as one that resizes it does; what is shown may not fit together then.',
    },
  } satisfies OptionTable<Mode>;
}

/** The operand, FILE or URI. */
export function sourceOf(values: OptionValues<ReturnType<typeof sourceOptions>>, operands: Operands): Source {
  const given = operands.at(0);
  if (given === undefined || !isNbdUri(given)) {
    const path = operands.read('FILE', fileName);
    return { kind: 'image', path, format: values.format, forceShare: values['force-share'] ?? false };
  }
  for (const long of ['format', 'force-share'] as const) {
    if (values[long] !== undefined) throw new UsageError(`option --${long}: it is for images, not for a URI`);
  }
  return { kind: 'export', target: operands.read('URI', nbdUri) };
}
