// Makes small CommonJS files of modules, one for each program, process or thread that Node starts by its own file: for the
// time that this takes. Node's loader is asked for nothing but ffi-rs, which is native.
import { writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build } from 'esbuild';

/**
 * A file of its own that another loads when it needs it: by require(), which spares a start the other loader.
 * @param {readonly string[]} entries
 * @returns {import('esbuild').Plugin}
 */
function partsApart(entries) {
  return {
    name: 'parts-apart',
    setup({ onResolve }) {
      onResolve({ filter: /^\./ }, ({ kind, path, resolveDir }) => {
        const isPart = kind === 'dynamic-import' && entries.includes(join(resolveDir, path));
        return isPart ? { path: `./${basename(path)}`, external: true } : undefined;
      });
    },
  };
}

/**
 * @param {readonly string[]} entries files, of different basenames: `folder` is flat
 * @param {string} folder inside the package, or ffi-rs is not found
 * @param {Record<string, unknown>} [manifest] what its package.json says besides the kind of its modules
 */
export async function bundle(entries, folder, manifest = {}) {
  await build({
    entryPoints: [...entries],
    outdir: folder,
    entryNames: '[name]',
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20.19',
    // Names stay, for the stack that --debug shows.
    minifyWhitespace: true,
    minifySyntax: true,
    banner: { js: '"use strict";const fileUrl=require("node:url").pathToFileURL(__filename).href;' },
    define: { 'import.meta.url': 'fileUrl' },
    external: ['ffi-rs'],
    plugins: [partsApart(entries)],
    supported: { 'dynamic-import': false },
    logLevel: 'warning',
  });
  // The nearest one tells Node how to read a file.
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ ...manifest, type: 'commonjs' }, null, 2)}\n`);
}
