import type { ExportDescription } from '../attach/query.js';
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
import { printableText } from '../protocol/text.js';
import type { Address } from '../transport/address.js';
import { formatNbdUri } from '../transport/uri.js';
import { exactSize } from './sizes.js';

/** An export that is described, or the reason why the server does not. */
export type ReportedExport =
  | { readonly kind: 'described'; readonly description: ExportDescription }
  | { readonly kind: 'listed'; readonly name: string; readonly description: string; readonly error: string };

/** The transmission flags by nbdinfo's names, in its order; resize is not among them there. */
const FLAGS: Readonly<Record<string, { readonly flag: number; readonly qemuWord: string }>> = {
  is_rotational: { flag: NBD_FLAG_ROTATIONAL, qemuWord: 'rotational' },
  is_read_only: { flag: NBD_FLAG_READ_ONLY, qemuWord: 'readonly' },
  can_block_status_payload: { flag: NBD_FLAG_BLOCK_STATUS_PAYLOAD, qemuWord: 'block-status-payload' },
  can_cache: { flag: NBD_FLAG_SEND_CACHE, qemuWord: 'cache' },
  can_df: { flag: NBD_FLAG_SEND_DF, qemuWord: 'df' },
  can_fast_zero: { flag: NBD_FLAG_SEND_FAST_ZERO, qemuWord: 'fast-zero' },
  can_flush: { flag: NBD_FLAG_SEND_FLUSH, qemuWord: 'flush' },
  can_fua: { flag: NBD_FLAG_SEND_FUA, qemuWord: 'fua' },
  can_multi_conn: { flag: NBD_FLAG_CAN_MULTI_CONN, qemuWord: 'multi' },
  can_resize: { flag: NBD_FLAG_SEND_RESIZE, qemuWord: 'resize' },
  can_trim: { flag: NBD_FLAG_SEND_TRIM, qemuWord: 'trim' },
  can_zero: { flag: NBD_FLAG_SEND_WRITE_ZEROES, qemuWord: 'zeroes' },
};

/** The names of all of them. */
export const FLAG_NAMES: readonly string[] = Object.keys(FLAGS);

/** Those that are set. */
export function flagNames(flags: number): readonly string[] {
  return FLAG_NAMES.filter((name) => (flags & (FLAGS[name]?.flag ?? 0)) !== 0);
}

/** Those that are set by qemu-nbd's words, which it prints in the order of the bits. */
export function qemuFlagWords(flags: number): readonly string[] {
  const set = Object.values(FLAGS).filter(({ flag }) => (flags & flag) !== 0);
  return set.sort((a, b) => a.flag - b.flag).map(({ qemuWord }) => qemuWord);
}

type Fact = string | number | boolean | readonly string[];

/** The keys are nbdinfo's. */
export function exportsAsJson(address: Address, exports: readonly ReportedExport[]): string {
  const report = { ...protocolOf(exports), exports: exports.map((each) => factsOf(address, each)) };
  return `${JSON.stringify(report, null, 2)}\n`;
}

/** As nbdinfo prints it. */
export function exportsAsText(address: Address, exports: readonly ReportedExport[]): string {
  const { protocol, extended, structured } = protocolOf(exports);
  const packets = extended ? 'extended' : structured ? 'structured' : 'simple';
  const first = protocol === undefined ? '' : `protocol: ${protocol} without TLS, using ${packets} packets\n`;
  return first + exports.map((each) => exportAsText(factsOf(address, each))).join('');
}

/** What holds for the server, as one of its exports showed it. */
function protocolOf(exports: readonly ReportedExport[]) {
  const described = exports.find((each) => each.kind === 'described')?.description;
  if (described === undefined) return {};
  const { fixedNewstyle, replyStyle } = described;
  return {
    protocol: fixedNewstyle ? 'newstyle-fixed' : 'newstyle',
    TLS: false,
    structured: replyStyle !== 'simple',
    extended: replyStyle === 'extended',
  };
}

function exportAsText({ 'export-name': name = '', ...facts }: Readonly<Record<string, Fact>>): string {
  const lines = [`export="${printableText(String(name))}":`];
  for (const [key, value] of Object.entries(facts)) {
    if (key === 'export-size-str') continue;
    if (typeof value === 'object') {
      lines.push(`\t${key}:`, ...value.map((each) => `\t\t${printableText(each)}`));
    } else {
      const size = key === 'export-size' ? ` (${facts['export-size-str']})` : '';
      lines.push(`\t${key}: ${printableText(String(value))}${size}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** In the order in which the text has them. */
function factsOf(address: Address, reported: ReportedExport): Readonly<Record<string, Fact>> {
  if (reported.kind === 'listed') {
    const { name, description, error } = reported;
    return { 'export-name': name, ...(description === '' ? {} : { description }), error };
  }
  const { exportName, info, contexts } = reported.description;
  const { sizeBytes, flags, description, blockSizes } = info;
  const flagFacts = Object.entries(FLAGS).map(([name, { flag }]) => [name, (flags & flag) !== 0] as const);
  return {
    'export-name': exportName,
    ...(description === undefined ? {} : { description }),
    'export-size': sizeBytes,
    'export-size-str': exactSize(sizeBytes),
    uri: formatNbdUri({ address, exportName }),
    ...(contexts.length === 0 ? {} : { contexts }),
    ...Object.fromEntries(flagFacts),
    ...(blockSizes && {
      block_size_minimum: blockSizes.minimum,
      block_size_preferred: blockSizes.preferred,
      block_size_maximum: blockSizes.maximumPayload,
    }),
  };
}
