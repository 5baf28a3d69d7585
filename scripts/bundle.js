// Makes small CommonJS files of modules, one for each program, process or thread that Node starts by its own file: for the
// time that this takes. Node's loader is asked for nothing but ffi-rs, which is native, and V8 for nothing where it has
// compiled the code before (compile.cjs).
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
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
 * What Node loads: it runs the code beside it, as V8 has compiled it, where that was done by this very Node. The code is
 * named by its hash, so that none is taken for another: V8 compares no more than lengths. Node is named by its file's size and time
 * too: what was compiled points into the heap that comes with each build of it. It is kept in memory: after a block of its size was
 * given back, malloc takes what is as large from the heaps of threads, which grew by 1.2 MiB a connection (M_MMAP_THRESHOLD, mallopt(3)).
 * @param {string} code
 */
function starter(code) {
  const hash = createHash('sha256').update(code).digest('hex').slice(0, 16);
  return `#!/usr/bin/env node
"use strict";
const fs=require("node:fs"),{Script}=require("node:vm"),filename=__filename.slice(0,-2)+"code.js";
let cachedData;
try{
const{size,mtimeMs}=fs.statSync(process.execPath);
cachedData=fs.readFileSync(\`\${filename}.${hash}.\${process.version}-\${size}-\${Math.trunc(mtimeMs)}.cache\`);
}catch{}
module.compiled=cachedData;
new Script(fs.readFileSync(filename,"latin1"),{filename,cachedData}).runInThisContext()(exports,require,module,__filename);
`;
}

/** A thread for each connection, in whose memory all of what is compiled would lie, used or not: Node loads it as it is. */
const PER_CONNECTION = 'worker.js';

/**
 * @param {readonly string[]} entries files, of different basenames: `folder` is flat
 * @param {string} folder inside the package, or ffi-rs is not found
 * @param {Record<string, unknown>} [manifest] what its package.json says besides the kind of its modules
 */
export async function bundle(entries, folder, manifest = {}) {
  const { outputFiles } = await build({
    entryPoints: [...entries],
    outdir: folder,
    entryNames: '[name]',
    write: false,
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20.19',
    // Names stay, for the stack that --debug shows.
    minifyWhitespace: true,
    minifySyntax: true,
    // What Node gives a module, which is made here; the URL when it is asked for, for that takes as long as a small module.
    banner: {
      js: '(function(exports,require,module,__filename){"use strict";const file={get url(){return require("node:url").pathToFileURL(__filename).href}};',
    },
    footer: { js: '})' },
    define: { 'import.meta.url': 'file.url', 'import.meta.filename': '__filename' },
    external: ['ffi-rs'],
    plugins: [partsApart(entries)],
    supported: { 'dynamic-import': false },
    charset: 'ascii',
    logLevel: 'warning',
  });
  mkdirSync(folder, { recursive: true });
  for (const { path, text } of outputFiles) {
    const code = text.replace(/^#!.*\n/, '');
    if (basename(path) === PER_CONNECTION) {
      writeFileSync(path, `${code.trimEnd()}(exports,require,module,__filename);\n`);
      continue;
    }
    writeFileSync(path, starter(code));
    writeFileSync(path.replace(/js$/, 'code.js'), code);
  }
  // The nearest one tells Node how to read a file.
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ ...manifest, type: 'commonjs' }, null, 2)}\n`);
}
