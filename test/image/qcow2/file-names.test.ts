import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describeChain } from '#tsnbd/image/describe-image.js';
import { printable } from '#tsnbd/image/file-name.js';
import { openImage } from '#tsnbd/image/open-image.js';
import { useTemporaryFolder } from '../temporary-folder.js';
import { readAll, refusal, withImage } from './open-qcow2.js';
import { BACKING_FORMAT, DATA_FILE_NAME, qcow2Bytes } from './qcow2-bytes.js';

const CLUSTER = 65_536;
const DATA_FILE = 4n;
const COPIED = 1n << 63n;
const inFolder = useTemporaryFolder();

const bytesOf = (latin1: string) => Buffer.from(latin1, 'latin1');
const at = (name: Uint8Array) => Buffer.concat([Buffer.from(inFolder('x').slice(0, -1)), name]);

/** Names, and others that they must not be taken for. */
const NAMES: readonly (readonly [what: string, name: Buffer, others: readonly string[]])[] = [
  ['a tabulator', bytesOf('a\tb'), ['a?b', 'a b']],
  ['what a terminal obeys', bytesOf('\x1b[31mred'), ['?[31mred']],
  ['an end of line', bytesOf('a\nb'), ['a?b']],
  ['a byte that is not UTF-8', bytesOf('b\xff.raw'), ['b\ufffd.raw', 'b?.raw']],
  ['a letter of Latin-1', bytesOf('gr\xfcn'), ['gr\ufffdn', 'grün']],
  ['a letter of UTF-8', Buffer.from('grün'), ['gr??n']],
  ['half a letter, and a whole one', Buffer.concat([bytesOf('\xc3'), Buffer.from('ü')]), ['\ufffdü']],
  ['a surrogate', bytesOf('\xed\xb2\x80'), ['\ufffd\ufffd\ufffd']],
  ['a byte order mark', Buffer.from('\ufeffx'), ['x']],
];

function makeFiles(name: Uint8Array, others: readonly string[], bytes = CLUSTER): void {
  for (const other of others) writeFileSync(inFolder(other), Buffer.alloc(bytes, 1));
  writeFileSync(at(name), Buffer.alloc(bytes, 7));
}

function onBacking(name: Uint8Array): string {
  const path = inFolder('disk.qcow2');
  const { bytes, extensionsAt } = qcow2Bytes({
    sizeBytes: CLUSTER,
    extensions: [[BACKING_FORMAT, Buffer.from('raw')]],
  });
  bytes.writeBigUInt64BE(BigInt(extensionsAt + 40), 8);
  bytes.writeUInt32BE(name.length, 16);
  bytes.set(name, extensionsAt + 40);
  writeFileSync(path, bytes);
  return path;
}

function onDataFile(name: Uint8Array): string {
  const path = inFolder('disk.qcow2');
  const clusters = new Map([[0, { kind: 'data', bytes: new Uint8Array(0) } as const]]);
  const wish = { sizeBytes: CLUSTER, incompatible: DATA_FILE, clusters, extensions: [[DATA_FILE_NAME, name]] as const };
  const { bytes, l2At } = qcow2Bytes(wish);
  bytes.writeBigUInt64BE(COPIED, l2At.get(0) ?? 0);
  writeFileSync(path, bytes);
  return path;
}

describe.each([
  ['backing', onBacking],
  ['data', onDataFile],
])('the %s file is the one with the very bytes of its name', (kind, make) => {
  it.each(NAMES)('%s', (_, name, others) => {
    makeFiles(name, others);
    withImage(make(name), (image, { files }) => {
      expect(readAll(image).every((byte) => byte === 7)).toBe(true);
      // As one process tells another.
      const told = JSON.parse(JSON.stringify([...files])) as [string, number][];
      openImage(inFolder('disk.qcow2'), { readOnly: true, given: new Map(told) });
    });
  });

  it.each(NAMES)('and is missed by a printable name: %s', (_, name, others) => {
    for (const other of others) writeFileSync(inFolder(other), Buffer.alloc(CLUSTER, 1));
    const path = make(name);
    const { code, message } = refusal(path);
    expect(code).toBe('missing');
    expect(message).toContain(`does not exist (the ${kind} file of ${path})`);
    expect(message).not.toMatch(/[\p{Cc}\p{Cs}]/u);
  });
});

it('a name that leads through a symbolic link and back leads to where the link does', () => {
  mkdirSync(inFolder('elsewhere/sub'), { recursive: true });
  symlinkSync('elsewhere/sub', inFolder('link'));
  makeFiles(bytesOf('b.raw'), []);
  writeFileSync(inFolder('elsewhere/b.raw'), Buffer.alloc(CLUSTER, 9));
  const path = onBacking(bytesOf('link/../b.raw'));
  withImage(path, (image) => expect(readAll(image)[0]).toBe(9));
  expect(describeChain(path, {})[1]?.path).toBe(inFolder('link/../b.raw').replace(/b.raw$/, 'link/../b.raw'));
});

it('info follows a chain by the very bytes, and what it does not find has a printable name', () => {
  const name = bytesOf('b\xff\n.raw');
  makeFiles(name, []);
  const path = onBacking(name);
  const [, backing] = describeChain(path, {});
  expect(backing?.virtualSizeBytes).toBe(CLUSTER);
  expect(() => describeChain(onBacking(bytesOf('\xff\n')), {})).toThrow(printable(`${inFolder('??')} does not exist`));
});

it('what is told of a file with such a name can be printed', () => {
  const name = bytesOf('odd\n\xff');
  makeFiles(name, [], 100);
  withImage(onBacking(name), (_, { notices }) => {
    expect(notices.join()).toContain(`${inFolder('odd??')} has 100 bytes`);
  });
});
