// Makes small CommonJS files of modules, one for each program, process or thread that Node starts by its own file, and for each
// part of them that is seldom needed: for the time that a start takes. Node's loader is asked for nothing but ffi-rs, which is
// native, and V8 for nothing where it has compiled the code before (compile.cjs).
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const COMPILER = fileURLToPath(new URL('compile.cjs', import.meta.url));

/**
 * A file of its own that another loads when it needs it.
 * @param {readonly string[]} parts
 * @returns {import('esbuild').Plugin}
 */
function partsApart(parts) {
  return {
    name: 'parts-apart',
    setup({ onResolve }) {
      onResolve({ filter: /^\./ }, ({ kind, path, resolveDir }) => {
        const isPart = kind === 'dynamic-import' && parts.includes(join(resolveDir, path));
        return isPart ? { path: `./${basename(path)}`, external: true } : undefined;
      });
    },
  };
}

/**
 * What Node loads: it runs the code beside it, and the parts that are asked for, as V8 has compiled them, where that
 * was done by this very Node. Node's loader takes longer for a file than the file does, so it is asked for none of these. Code is
 * named by its hash, so that none is taken for another: V8 compares no more than lengths. Node is named by its file's size and time
 * too: what was compiled points into the heap that comes with each build of it. It is kept in memory: after a block of its size was
 * given back, malloc takes what is as large from the heaps of threads, which grew by 1.2 MiB a connection (M_MMAP_THRESHOLD, mallopt(3)).
 * @param {string} name
 * @param {Readonly<Record<string, string>>} hashes of its code and of the parts'
 */
function starter(name, hashes) {
  return `#!/usr/bin/env node
"use strict";
const fs=require("node:fs"),{Script}=require("node:vm"),hashes=${JSON.stringify(hashes)},loaded={},compiled=module.compiled=[];
let node;
try{
const{size,mtimeMs}=fs.statSync(process.execPath);
node=\`\${process.version}-\${size}-\${Math.trunc(mtimeMs)}\`;
}catch{}
function run(name,part){
const file=__dirname+"/"+name,filename=file+".code.js";
let cachedData;
try{
compiled.push(cachedData=fs.readFileSync(\`\${filename}.\${hashes[name]}.\${node}.cache\`));
}catch{}
new Script(fs.readFileSync(filename,"latin1"),{filename,cachedData}).runInThisContext()(part.exports,load,part,file+".js");
return part.exports;
}
function load(id){
return id.startsWith("./")?loaded[id]??=run(id.slice(2,-3),{exports:{}}):require(id);
}
run("${name}",module);
`;
}

/**
 * @param {readonly string[]} entries what Node starts: files, of different basenames, for `folder` is flat
 * @param {readonly string[]} parts what these load only when they need it
 * @param {string} folder inside the package, or ffi-rs is not found
 * @param {Record<string, unknown>} [manifest] what its package.json says besides the kind of its modules
 */
export async function bundle(entries, parts, folder, manifest = {}) {
  const { outputFiles } = await build({
    entryPoints: [...entries, ...parts],
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
    plugins: [partsApart(parts)],
    supported: { 'dynamic-import': false },
    charset: 'ascii',
    logLevel: 'warning',
  });
  mkdirSync(folder, { recursive: true });
  const codes = outputFiles.map(({ path, text }) => ({
    name: basename(path, '.js'),
    code: text.replace(/^#!.*\n/, ''),
  }));
  const partNames = parts.map((part) => basename(part, '.js'));
  const hashes = codes.map(({ name, code }) => [name, createHash('sha256').update(code).digest('hex').slice(0, 16)]);
  for (const { name, code } of codes) {
    writeFileSync(join(folder, `${name}.code.js`), code);
    if (partNames.includes(name)) continue;
    const loadable = hashes.filter(([hashed = '']) => hashed === name || partNames.includes(hashed));
    writeFileSync(join(folder, `${name}.js`), starter(name, Object.fromEntries(loadable)));
  }
  // The nearest one tells Node how to read a file.
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ ...manifest, type: 'commonjs' }, null, 2)}\n`);
}

/**
 * Puts the compiler beside what was bundled, where an installation finds it, and has it compile that.
 * @param {string} folder
 */
export function compile(folder) {
  const compiler = join(folder, basename(COMPILER));
  copyFileSync(COMPILER, compiler);
  execFileSync(process.execPath, [compiler], { stdio: 'inherit' });
}
