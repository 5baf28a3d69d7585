import type { ExportChoice } from '../attach/attach-request.js';
import { UsageError } from './errors.js';
import type { OptionTable } from './option-table.js';
import { sizeBytes } from './sizes.js';

/** How an export is asked for and seen, where its server is not to decide. */
export function exportChoiceOptions<Mode extends string>(modes: readonly Mode[]) {
  return {
    size: {
      short: 'B',
      value: '<SIZE>',
      read: deviceSize,
      modes,
      help: 'The size of the device in bytes, or with k, M, G, T or P behind it: at most that of the export, of which the device shows the beginning.',
    },
    readonly: {
      short: 'R',
      modes,
      help: 'Attach for reading only, whatever the server allows.',
    },
    'no-optgo': {
      short: 'g',
      modes,
      help: 'Ask for the export in the way of older clients (NBD_OPT_EXPORT_NAME), for a server that does not do the newer one right. It tells no block sizes, and a refusal without a reason.',
    },
    preinit: {
      short: 'P',
      modes,
      help: 'Do not negotiate: the server takes requests at once. The size has to be given with --size, flushes are not sent, and nobody connects again.',
    },
  } satisfies OptionTable<Mode>;
}

interface Values {
  readonly size?: number;
  readonly readonly?: true;
  readonly 'no-optgo'?: true;
  readonly preinit?: true;
}

/** What a command line says of it. */
export function exportChoice({ size, readonly, 'no-optgo': noGo, preinit }: Values): ExportChoice {
  if (preinit && noGo) throw new UsageError('options --preinit and --no-optgo: only one of them at a time');
  if (preinit && size === undefined) throw new UsageError('option --preinit: it needs --size, which nobody tells else');
  return {
    ...(size === undefined ? {} : { sizeBytes: size }),
    ...(readonly ? { readOnly: readonly } : {}),
    ...(preinit ? { handshake: 'none' } : noGo ? { handshake: 'export-name' } : {}),
  };
}

function deviceSize(text: string): number {
  const bytes = sizeBytes(text);
  if (bytes > 0) return bytes;
  throw new UsageError('a device cannot have 0 bytes');
}
