import { writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { openImage } from '#tsnbd/image/open-image.js';
import { tellOfTrouble } from '#tsnbd/image/trouble.js';
import { qcow2Bytes } from './qcow2/qcow2-bytes.js';
import { useTemporaryFolder } from './temporary-folder.js';

const CLUSTER = 4096;
const COPIED = 1n << 63n;
const inFolder = useTemporaryFolder();

const LOST = /^.*disk could not be brought to the disk: what was written may be lost/;
const CORRUPT =
  /^.*disk has tables that contradict each other, and nothing is written any more; see: tsnbd check .*disk$/;

function qcow2(isCorrupt: boolean): Uint8Array {
  const clusters = new Map([[0, { kind: 'data', bytes: new Uint8Array(CLUSTER) } as const]]);
  const { bytes, l2At, l1At } = qcow2Bytes({ clusterBits: 12, sizeBytes: 64 * CLUSTER, clusters });
  if (isCorrupt) bytes.writeBigUInt64BE(COPIED | BigInt(l1At), l2At.get(0) ?? 0);
  return bytes;
}

it.each<[string, Uint8Array, number, RegExp]>([
  ['a raw image whose sync fails', new Uint8Array(CLUSTER), -5, LOST],
  ['a qcow2 image whose sync fails', qcow2(false), -5, LOST],
  ['a qcow2 image whose tables contradict each other', qcow2(true), 0, CORRUPT],
])('of %s the opener is told at once, and once, by whatever worker', async (_, bytes, synced, message) => {
  writeFileSync(inFolder('disk'), bytes);
  const opened = openImage(inFolder('disk'), { readOnly: false });
  const told: string[] = [];
  tellOfTrouble(inFolder('disk'), opened, (text) => told.push(text));
  const program = `
    import { parentPort, workerData } from 'node:worker_threads';
    const { imageFrom } = await import(workerData.image);
    const { fileCalls } = await import(workerData.calls);
    const image = imageFrom(workerData.handle, { ...fileCalls, sync: () => ${synced} });
    for (let round = 0; round < 2; round += 1) {
      image.write(0, 512, new Uint8Array(512).fill(7), 0, false);
      image.flush();
    }
    parentPort.once('message', () => image.close());
    parentPort.postMessage('done');`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), {
    workerData: {
      image: import.meta.resolve('#tsnbd/image/open-image.js'),
      calls: import.meta.resolve('#tsnbd/image/file-calls.js'),
      handle: opened.handle,
    },
  });
  try {
    await expect.poll(() => told).toEqual([expect.stringMatching(message)]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(told).toHaveLength(1);
  } finally {
    worker.postMessage('close');
    await new Promise((resolve) => worker.once('exit', resolve));
    opened.close();
  }
});
