#!/usr/bin/env node
// Builds the project: tsc writes build/ (what the tests import), which is bundled flat into dist/ (what is shipped and
// run), one file for each program, process and thread,
// and for each part that a program seldom needs; the manual pages, and what completes
// command lines in shells, are made from the option tables.
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundle, compile } from './bundle.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, 'dist');

/** Everything that Node starts by its own file: programs, processes, threads. */
const programs = ['cli/tsnbd', 'cli/tsnbd-client', 'cli/mount-tsnbd', 'cli/umount-tsnbd'];
const processes = [
  'attach/attach-process',
  'attach/remote-attach-process',
  'attach/disconnect-process',
  'cli/serve-process',
];
/** What these load only when it is asked for. */
const parts = [
  'cli/tsnbd-actions',
  'cli/attach-here',
  'cli/attach-and-leave',
  'cli/client-list',
  'attach/detach',
  'attach/release',
];
const threads = ['server/worker', 'kernel/do-it-thread'];

execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'tsconfig.json')], {
  cwd: root,
  stdio: 'inherit',
});
execFileSync(process.execPath, [join(root, 'scripts/man.js')], { stdio: 'inherit' });

rmSync(dist, { recursive: true, force: true });
const { name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const built = (/** @type {string} */ entry) => join(root, 'build', `${entry}.js`);
await bundle(
  [...programs, ...processes, ...threads].map(built),
  parts.map(built),
  dist,
  // Under this name the version is asked for (cli/version.ts).
  { name, version, exports: { './package.json': './package.json' } },
);
execFileSync(process.execPath, [join(root, 'scripts/completion.js')], { stdio: 'inherit' });
compile(dist);
for (const program of programs) chmodSync(join(dist, `${program.split('/').pop()}.js`), 0o755);
// Their code is in the bundles.
for (const name of ['commander', 'fzstd']) {
  copyFileSync(join(root, 'node_modules', name, 'LICENSE'), join(dist, `LICENSE-${name}`));
}
