// The bound's program.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('server.c', import.meta.url));

/**
 * Compiles it; it needs no library where it runs.
 * @param {string} folder for it
 * @returns {string} its path
 */
export function boundServer(folder) {
  const program = join(folder, 'bound');
  execFileSync('gcc', ['-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', program, SOURCE, '-pthread']);
  return program;
}
