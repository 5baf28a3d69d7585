#!/usr/bin/env node
import { asMountSays } from './mount-status.js';
import { parseMountTsnbd } from './mount-tsnbd-options.js';
import { mountAndTell } from './mounting.js';
import { run, tellAnswer } from './run.js';

const PROGRAM = 'mount.tsnbd';

const action = asMountSays(parseMountTsnbd(process.argv.slice(2)));
void run(PROGRAM, false, async () => {
  if (action.kind === 'mount') return mountAndTell(PROGRAM, action);
  return tellAnswer(PROGRAM, action);
});
