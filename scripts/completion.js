#!/usr/bin/env node
// Writes what completes command lines in shells, from the option tables in build/, beside the programs in dist/;
// scripts/build.js calls it.
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { completionScripts } from '#tsnbd/cli/completion-scripts.js';
import { completionFile, SHELLS } from '#tsnbd/cli/shells.js';
import { tsnbdClientProgram } from '#tsnbd/cli/tsnbd-client-options.js';
import { tsnbdProgram } from '#tsnbd/cli/tsnbd-options.js';

const dist = join(dirname(dirname(fileURLToPath(import.meta.url))), 'dist');
const scripts = completionScripts([tsnbdProgram, tsnbdClientProgram]);
for (const shell of SHELLS) writeFileSync(join(dist, completionFile(shell)), scripts[shell]);
