import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { completionFile, type Shell } from './shells.js';

/** The script that completes our command lines in `shell`; the build puts it beside the programs. */
export function completionText(shell: Shell): string {
  return readFileSync(fileURLToPath(new URL(completionFile(shell), import.meta.url)), 'utf8');
}
