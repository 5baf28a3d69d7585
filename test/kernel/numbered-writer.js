// Runs in the guest: lanes write numbered blocks, make them durable round by round, and marks in the log of dm-log-writes say
// how far each lane has come. First each lane is alone, with a mark after each round: no other's flush makes its blocks
// durable. Then all go on at once. argv: the log's device, the rounds alone and together, and the lanes as JSON. Prints what
// it did.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { alignedMemory } from '#tsnbd/kernel/memory.js';
import { BLOCK_BYTES, fillBlock, roundBlocks } from './numbered-blocks.js';

const { O_RDWR, O_CREAT, O_DSYNC, O_DIRECT } = constants;
const WAYS = { fsync: 0, fdatasync: 0, dsync: O_DSYNC, fua: O_DSYNC | O_DIRECT };

/** @typedef {{ path: string, offsetBytes: number, way: keyof typeof WAYS }} Lane */

const [, , logDevice = '', alone = '0', together = '0', lanesText = '[]'] = process.argv;
/** @type {Lane[]} */
const lanes = JSON.parse(lanesText);
/** The last round of each lane that is said to be durable. */
const acknowledged = lanes.map(() => 0);

/**
 * @param {number} number of the lane
 * @param {number} rounds
 * @param {() => Promise<void> | void} afterRound
 */
async function write(number, rounds, afterRound) {
  const { path, offsetBytes, way } = /** @type {Lane} */ (lanes[number]);
  const file = await open(path, O_RDWR | O_CREAT | WAYS[way]);
  const buffer = alignedMemory(BLOCK_BYTES, BLOCK_BYTES);
  const last = (acknowledged[number] ?? 0) + rounds;
  for (let round = last - rounds + 1; round <= last; round += 1) {
    for (const block of roundBlocks(number, round)) {
      fillBlock(buffer, number, block, round);
      await file.write(buffer, 0, BLOCK_BYTES, offsetBytes + block * BLOCK_BYTES);
    }
    if (way === 'fsync') await file.sync();
    if (way === 'fdatasync') await file.datasync();
    acknowledged[number] = round;
    await afterRound();
  }
  await file.close();
}

/** One shell for all marks: to start a program from here takes longer than many rounds. */
const marker = spawn('sh', ['-c', `while read text; do dmsetup message ${logDevice} 0 mark $text && echo; done`], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
const answers = createInterface({ input: marker.stdout })[Symbol.asyncIterator]();
let marks = 0;

async function mark() {
  marker.stdin.write(`${acknowledged.join(',')}\n`);
  const { done } = await answers.next();
  if (done) throw new Error('a mark could not be set');
  marks += 1;
}

for (const number of lanes.keys()) await write(number, Number(alone), mark);

let writing = true;
const written = Promise.all(lanes.map((_, number) => write(number, Number(together), () => {}))).finally(() => {
  writing = false;
});
while (writing) await mark();
await written;
await mark();
marker.stdin.end();
await once(marker, 'exit');
console.log(JSON.stringify({ marks, acknowledged }));
