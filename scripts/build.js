#!/usr/bin/env node
// Builds the project: tsc writes build/ (what the tests import), esbuild bundles it flat into dist/ (what is shipped and
// run), one file for each program, process and thread; the manual pages are made from the option tables.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Everything that Node starts by its own file: programs, processes, threads. Basenames are unique because dist is flat. */
const programs = ['cli/tsnbd', 'cli/tsnbd-client'];
const others = ['attach/attach-process', 'attach/disconnect-process', 'server/worker', 'kernel/do-it-thread'];

execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'tsconfig.json')], {
  cwd: root,
  stdio: 'inherit',
});
execFileSync(process.execPath, [join(root, 'scripts/man.js')], { stdio: 'inherit' });

rmSync(join(root, 'dist'), { recursive: true, force: true });
const entries = [...programs, ...others].map((name) => join(root, 'build', `${name}.js`));
await build({
  entryPoints: entries.filter((path) => existsSync(path)),
  outdir: join(root, 'dist'),
  entryNames: '[name]',
  chunkNames: 'chunk-[hash]',
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  splitting: true,
  packages: 'external',
  logLevel: 'warning',
});
for (const program of programs) {
  const path = join(root, 'dist', `${program.split('/').pop()}.js`);
  if (existsSync(path)) chmodSync(path, 0o755);
}
