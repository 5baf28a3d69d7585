#!/usr/bin/env node
// Writes the manual pages in man/ from the option tables in build/; scripts/build.js calls it.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { manPage } from '#tsnbd/cli/man-page.js';
import { mountTsnbdProgram } from '#tsnbd/cli/mount-tsnbd-options.js';
import { tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';
import { tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';
import { umountTsnbdProgram } from '#tsnbd/cli/umount-tsnbd-options.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

mkdirSync(join(root, 'man'), { recursive: true });
const write = (/** @type {string} */ name, /** @type {string} */ page) => {
  writeFileSync(join(root, 'man', `${name}.8`), page);
};
write(tsnbdProgram.name, manPage(tsnbdProgram, version));
write(tsnbdClientProgram.name, manPage(tsnbdClientProgram, version));
write(mountTsnbdProgram.name, manPage(mountTsnbdProgram, version));
write(umountTsnbdProgram.name, manPage(umountTsnbdProgram, version));
