import { printableText } from '../protocol/text.js';
import type { Address } from '../transport/address.js';
import { EXIT_STATUSES } from './exit-status.js';
import { qemuFlagWords, type ReportedExport } from './export-report.js';
import { reportedExports } from './list.js';
import type { Verbosity } from './parse.js';
import { tellMessages } from './run.js';

/** Prints the exports of a server in the shape of `qemu-nbd --list`. */
export async function listAsQemu(program: string, address: Address, verbosity: Verbosity): Promise<number> {
  const exports = await reportedExports(address, tellMessages(program, verbosity));
  process.stdout.write(`exports available: ${exports.length}\n${exports.map(exportAsText).join('')}`);
  return EXIT_STATUSES.done.status;
}

function exportAsText(reported: ReportedExport): string {
  if (reported.kind === 'listed') {
    return linesOf(reported.name, reported.description, [`  error: ${reported.error}`]);
  }
  const { exportName, info, contexts, replyStyle } = reported.description;
  const { sizeBytes, flags, description, blockSizes } = info;
  const lines = [
    `  size:  ${sizeBytes}`,
    `  flags: 0x${flags.toString(16)} ( ${[...qemuFlagWords(flags), ''].join(' ')})`,
  ];
  if (blockSizes !== undefined) {
    const { minimum, preferred, maximumPayload } = blockSizes;
    lines.push(`  min block: ${minimum}`, `  opt block: ${preferred}`, `  max block: ${maximumPayload}`);
  }
  if (replyStyle === 'extended') lines.push('  transaction size: 64-bit');
  if (contexts.length > 0) lines.push(`  available meta contexts: ${contexts.length}`);
  lines.push(...contexts.map((context) => `   ${printableText(context)}`));
  return linesOf(exportName, description ?? '', lines);
}

function linesOf(name: string, description: string, more: readonly string[]): string {
  const about = description === '' ? [] : [`  description: ${printableText(description)}`];
  return `${[` export: '${printableText(name)}'`, ...about, ...more].join('\n')}\n`;
}
