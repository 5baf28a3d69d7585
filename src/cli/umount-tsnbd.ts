#!/usr/bin/env node
import { asMountSays } from './mount-status.js';
import { unmountAndTell } from './mounting.js';
import { run, tellAnswer } from './run.js';
import { parseUmountTsnbd } from './umount-tsnbd-options.js';

const PROGRAM = 'umount.tsnbd';

const action = asMountSays(parseUmountTsnbd(process.argv.slice(2)));
void run(PROGRAM, false, async () => {
  if (action.kind === 'umount') return unmountAndTell(PROGRAM, action);
  return tellAnswer(PROGRAM, action);
});
