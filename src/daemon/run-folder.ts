import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

/** Where running processes are found: NAME.json (state file) and NAME.sock (control socket); NAME is 'nbd0'. */
export const RUN_FOLDER = '/run/tsnbd';

export function runFile(name: string, suffix: '.json' | '.json.new' | '.sock' | '.sock.new'): string {
  return join(RUN_FOLDER, name + suffix);
}

/** Makes the folder; anybody may look in, only root writes. */
export function makeRunFolder(): void {
  mkdirSync(RUN_FOLDER, { recursive: true, mode: 0o755 });
}
