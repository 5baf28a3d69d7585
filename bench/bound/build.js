// The bound's programs.
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundle, compile } from '../../scripts/bundle.js';

const SOURCE = pathOf('server.c');

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

/**
 * Bundles and compiles the least that an attach is, as our programs are.
 * @param {string} folder for it
 * @param {string} packages the node_modules with ffi-rs
 * @returns {Promise<string>} its path
 */
export async function boundAttach(folder, packages) {
  const place = join(folder, 'bound-attach');
  mkdirSync(place);
  symlinkSync(packages, join(place, 'node_modules'));
  await bundle([pathOf('attach.js')], [], place);
  compile(place);
  return join(place, 'attach.js');
}

/** @param {string} name */
function pathOf(name) {
  return fileURLToPath(new URL(name, import.meta.url));
}
