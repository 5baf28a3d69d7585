import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { describeExport, openExport } from '#tsnbd/attach/query.js';
import { isSo } from '#tsnbd/cli/export-question.js';
import { parseNbdUri } from '#tsnbd/transport/uri.js';
import { DISK_BYTES, makeHoleyDisk, type Piece } from './holey-disk.js';
import { nbdkit, nbdServer, type Peer, qemuNbd, serverOf } from './peers.js';
import { run, runTsnbd, type Served, serveExports, serveUnix, succeed, TSNBD } from './served.js';

let folder: string;
let image: string;
let pieces: readonly Piece[];
let server: Peer | Served | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-tools-'));
  image = join(folder, 'disk.raw');
  pieces = makeHoleyDisk(image);
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
  rmSync(folder, { recursive: true });
});

const servers = {
  nbdkit: () => nbdkit(folder, '-r', 'file', image),
  'nbdkit without structured replies': () => nbdkit(folder, '--no-sr', 'file', image),
  'nbdkit with blocks': () => nbdkit(folder, '--filter=blocksize-policy', 'file', image, 'blocksize-minimum=4096'),
  'qemu-nbd': () => qemuNbd(folder, 'größe 1', '-t', '-f', 'raw', '-D', 'a disk', image),
  'qemu-nbd, of qcow2': async () => {
    const copy = join(folder, 'disk.qcow2');
    await succeed('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', image, copy);
    return qemuNbd(folder, '/x', '-t', '-f', 'qcow2', '-A', copy);
  },
  'nbd-server': () => nbdServer(folder, 'disk', image),
  'our own': () => serveUnix(join(folder, 'socket'), image, '-t', '-e', '0', '-x', 'disk', '-D', 'a disk'),
};

async function serve(name: keyof typeof servers): Promise<string> {
  server = await servers[name]();
  return 'runs' in server ? server.uri : `nbd+unix:///disk?socket=${join(folder, 'socket')}`;
}

/** What tsnbd prints; it must succeed, and say nothing else. */
async function tsnbd(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runTsnbd(...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

const json = async (text: Promise<string>) => JSON.parse(await text);
const rows = () =>
  pieces.map(({ offsetBytes, lengthBytes, isData }) => ({
    offset: offsetBytes,
    length: lengthBytes,
    type: isData ? 0 : 3,
    description: isData ? 'data' : 'hole,zero',
  }));

/** What nbdinfo shows, without what it finds out by reading the disk, and spells in its own way. */
function comparable(shown: { exports: Record<string, unknown>[] }) {
  return { ...shown, exports: shown.exports.map(({ content, uri, ...facts }) => facts) };
}

describe.each(Object.keys(servers) as (keyof typeof servers)[])('an export of %s', (name) => {
  test('is described as nbdinfo does', async () => {
    const uri = await serve(name);
    const theirs = comparable(await json(succeed('nbdinfo', '--json', uri)));
    const ours = comparable(await json(tsnbd('info', '--json', uri)));
    if (name === 'nbd-server') theirs.exports = ours.exports; // it tells them no size until it is opened
    if (name === 'our own') expect(ours).toMatchObject({ extended: true });
    expect(ours).toMatchObject(theirs);
    expect(ours.exports).toMatchObject([{ 'export-size': DISK_BYTES }]);

    const text = await tsnbd('info', uri);
    const lines = (await succeed('nbdinfo', uri))
      .split('\n')
      .filter((line) => !/^\t(content|uri):|^protocol/.test(line));
    if (name !== 'nbd-server') expect(text.split('\n')).toEqual(expect.arrayContaining(lines));
    expect(text).toContain(`\texport-size: ${DISK_BYTES} (16M)\n`);
  });

  test('is listed as nbdinfo does', async () => {
    const uri = serverOf(await serve(name));
    const ours = comparable(await json(tsnbd('list', '--json', uri)));
    const theirs = comparable(await json(succeed('nbdinfo', '--list', '--json', uri)));
    if (name === 'nbd-server') theirs.exports = ours.exports;
    expect(ours).toMatchObject(theirs);
    expect(ours.exports).toMatchObject([{ 'export-size': DISK_BYTES }]);
  });

  test('is mapped as nbdinfo does, or not at all', async () => {
    const uri = await serve(name);
    if (name === 'nbd-server' || name === 'nbdkit without structured replies') {
      expect(await runTsnbd('map', uri)).toEqual({
        status: 6,
        stdout: '',
        stderr: 'tsnbd: the server does not tell where the holes are (base:allocation)\n',
      });
      return;
    }
    const ours = await json(tsnbd('map', '--json', uri));
    expect(ours).toEqual(await json(succeed('nbdinfo', '--map', '--json', uri)));
    expect(await tsnbd('map', uri)).toBe(await succeed('nbdinfo', '--map', uri));
    if (name !== 'qemu-nbd, of qcow2') expect(ours).toEqual(rows());

    const picture = join(folder, 'map.svg');
    expect(await tsnbd('map', '--svg', picture, uri)).toBe('');
    expect(readFileSync(picture, 'utf8')).toMatch(/^<svg [^>]*>\n/);
  });

  test('is read to the last byte by our client', async () => {
    const target = parseNbdUri(await serve(name));
    const { socket, outcome } = await openExport(target, []);
    const piece = 1_048_576;
    const read: Uint8Array[] = [];
    for (let at = 0; at < outcome.export.sizeBytes; at += piece) {
      const request = { type: 0, offsetBytes: at, lengthBytes: piece };
      const reply = await socket.ask(request, 60_000);
      expect(reply.error).toBe(0);
      read.push(reply.data);
    }
    socket.leave();
    expect(Buffer.concat(read).equals(readFileSync(image))).toBe(true);
  });
});

/** Those that every nbdinfo knows. */
const QUESTIONS =
  'connect read write tls structured-reply read-only rotational cache df fast-zero flush fua multi-conn trim zero';

test('what an export is, can and has is answered as nbdinfo does', async () => {
  const uri = await serve('nbdkit without structured replies');
  const description = await describeExport(parseNbdUri(uri));
  for (const question of QUESTIONS.split(' ')) {
    const { status } = await run('nbdinfo', '--can', question, uri);
    expect([question, isSo(question, description) ? 0 : 2]).toEqual([question, status]);
  }
  const silent = { stdout: '', stderr: '' };
  expect(await runTsnbd('info', '--can', 'write', uri)).toEqual({ status: 0, ...silent });
  expect(await runTsnbd('info', '--has', 'extended-headers', uri)).toEqual({ status: 2, ...silent });
  expect(await runTsnbd('info', '--is', 'read-only', uri)).toEqual({ status: 2, ...silent });
  const ours = { ...description, replyStyle: 'extended' } as const;
  expect(['extended-headers', 'structured-reply'].map((question) => isSo(question, ours))).toEqual([true, true]);
});

test('with --debug whatever asks a server tells each message of the negotiation', async () => {
  const uri = await serve('nbdkit without structured replies');
  const socket = /socket=(.*)$/.exec(uri)?.[1] ?? '';
  const greeted = /^PROGRAM: < NBDMAGIC IHAVEOPT, handshake flags 0x3\nPROGRAM: > client flags 0x3\n/;
  const asks = async (option: string, ...args: string[]) => {
    const program = args[0] === '-l' ? 'tsnbd-client' : 'tsnbd';
    const { stderr } = await run(process.execPath, TSNBD.replace('tsnbd.js', `${program}.js`), ...args, '--debug');
    const said = stderr.replaceAll(`${program}: `, 'PROGRAM: ');
    expect(said).toMatch(greeted);
    expect(said).toMatch(
      new RegExp(`^PROGRAM: > ${option}, [0-9]+ bytes\\nPROGRAM: < NBD_REP_[A-Z_]+ to ${option}, `, 'm'),
    );
    return said;
  };
  expect(await asks('NBD_OPT_INFO', 'info', uri)).toMatch(/ > NBD_OPT_ABORT, 0 bytes\n$/);
  await asks('NBD_OPT_GO', 'map', uri);
  await asks('NBD_OPT_LIST', 'list', uri);
  await asks('NBD_OPT_LIST', '-L', '-k', socket);
  await asks('NBD_OPT_LIST', '-l', '-u', socket);
});

test('a question to a server that is not there is not answered, but an error', async () => {
  const uri = `nbd+unix:///?socket=${folder}/none`;
  const theirs = await run('nbdinfo', '--can', 'connect', uri);
  expect(await runTsnbd('info', '--can', 'connect', uri)).toEqual({
    status: theirs.status,
    stdout: '',
    stderr: expect.stringMatching(/^tsnbd: cannot connect to .*\n$/),
  });
});

describe('a server', () => {
  test('that ends with its last client stays when an export is only described', async () => {
    server = await qemuNbd(folder, '', '-f', 'raw', image);
    await tsnbd('info', server.uri);
    await tsnbd('list', server.uri);
    expect('runs' in server && server.runs()).toBe(true);
    await tsnbd('map', server.uri);
    await expect.poll(() => server !== undefined && 'runs' in server && server.runs()).toBe(false);
  });

  test('lists many exports, each with its own', async () => {
    const names = Array.from({ length: 40 }, (_, index) => `export ${index}`);
    const images = await Promise.all(
      names.map(async (name, index) => {
        const path = join(folder, `${index}.raw`);
        await succeed('qemu-img', 'create', '-q', '-f', 'raw', path, `${index + 1}M`);
        return `${name}=${path}`;
      }),
    );
    const socket = join(folder, 'socket');
    server = await serveExports(socket, '-t', '-D', 'export 7=seven', ...images);
    const uri = `nbd+unix:///?socket=${socket}`;
    const { exports } = await json(tsnbd('list', '--json', uri));
    const client = TSNBD.replace('tsnbd.js', 'tsnbd-client.js');
    const asClient = JSON.parse(await succeed(process.execPath, client, '-l', '--json', '-u', socket));
    expect(asClient.exports).toEqual(exports);
    expect(exports.map((each: Record<string, unknown>) => [each['export-name'], each['export-size']])).toEqual(
      names.map((name, index) => [name, (index + 1) * 1_048_576]),
    );
    expect(exports[7].description).toBe('seven');
    expect((await runTsnbd('info', uri)).stderr).toMatch(/^tsnbd: the server has no default export: name one; .*\n$/);
    expect(await json(tsnbd('info', '--json', exports[9].uri))).toMatchObject({ exports: [exports[9]] });
  });

  test('is not there, or is none', async () => {
    const nowhere = await runTsnbd('info', '--debug', `nbd+unix:///?socket=${folder}/none`);
    expect(nowhere).toMatchObject({
      status: 1,
      // With --debug, and there alone, where in the program it arose.
      stderr: expect.stringMatching(/^tsnbd: cannot connect to .*none: .*\nTransportError: .*\n(?: +at .*\n)+$/),
    });
    const bad = await runTsnbd('map', 'nbd://h:x/');
    expect(bad).toMatchObject({ status: 2, stderr: expect.stringMatching(/^tsnbd: URI: .* character 9: .*\n$/) });
    expect((await run('nbdinfo', `nbd+unix:///?socket=${folder}/none`)).status).not.toBe(0);
  });
});
