import { describeExport, listExports } from '../attach/query.js';
import {
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_RESIZE,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from '../protocol/constants.js';
import { ProtocolError } from '../protocol/errors.js';
import type { ListedExport } from '../protocol/option-reply.js';
import { printableText } from '../protocol/text.js';
import type { Address } from '../transport/address.js';
import { EXIT_STATUSES } from './exit-status.js';

/** By qemu-nbd's words, in its order. */
const FLAG_WORDS: readonly (readonly [number, string])[] = [
  [NBD_FLAG_READ_ONLY, 'readonly'],
  [NBD_FLAG_SEND_FLUSH, 'flush'],
  [NBD_FLAG_SEND_FUA, 'fua'],
  [NBD_FLAG_ROTATIONAL, 'rotational'],
  [NBD_FLAG_SEND_TRIM, 'trim'],
  [NBD_FLAG_SEND_WRITE_ZEROES, 'zeroes'],
  [NBD_FLAG_SEND_DF, 'df'],
  [NBD_FLAG_CAN_MULTI_CONN, 'multi'],
  [NBD_FLAG_SEND_RESIZE, 'resize'],
  [NBD_FLAG_SEND_CACHE, 'cache'],
  [NBD_FLAG_SEND_FAST_ZERO, 'fast-zero'],
  [NBD_FLAG_BLOCK_STATUS_PAYLOAD, 'block-status-payload'],
];

/** Prints the exports of a server in the shape of `qemu-nbd --list`. */
export async function listAsQemu(address: Address): Promise<number> {
  const exports = await listExports(address);
  process.stdout.write(`exports available: ${exports.length}\n`);
  for (const listed of exports) process.stdout.write(await described(address, listed));
  return EXIT_STATUSES.done.status;
}

async function described(address: Address, { name, description }: ListedExport): Promise<string> {
  const lines = [` export: '${printableText(name)}'`];
  if (description !== '') lines.push(`  description: ${printableText(description)}`);
  try {
    const { info, contexts, replyStyle } = await describeExport({ address, exportName: name });
    const words = FLAG_WORDS.flatMap(([flag, word]) => ((info.flags & flag) === 0 ? [] : [word]));
    lines.push(`  size:  ${info.sizeBytes}`, `  flags: 0x${info.flags.toString(16)} ( ${[...words, ''].join(' ')})`);
    const { blockSizes } = info;
    if (blockSizes !== undefined) {
      const { minimum, preferred, maximumPayload } = blockSizes;
      lines.push(`  min block: ${minimum}`, `  opt block: ${preferred}`, `  max block: ${maximumPayload}`);
    }
    if (replyStyle === 'extended') lines.push('  transaction size: 64-bit');
    if (contexts.length > 0) lines.push(`  available meta contexts: ${contexts.length}`);
    lines.push(...contexts.map((context) => `   ${printableText(context)}`));
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    lines.push(`  error: ${error.message}`);
  }
  return `${lines.join('\n')}\n`;
}
