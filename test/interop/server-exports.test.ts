import { randomFillSync } from 'node:crypto';
import { constants, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ClientHandshake } from '#tsnbd/protocol/client-handshake.js';
import { connect } from '#tsnbd/transport/connect.js';
import { runHandshake } from '#tsnbd/transport/handshake-socket.js';
import { fdsOpenOn, openFlags } from '../open-fds.js';
import { run, runTsnbd, type Served, serveActivated, serveExports, serveUnix, sha256, succeed } from './served.js';

const { O_DIRECT } = constants;
const MIB = 2 ** 20;
const [ROOT_BYTES, HOME_BYTES] = [8_388_608, 1_048_576];
let folder: string;
let root: string;
let home: string;
let socket: string;
let server: Served | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-exports-'));
  [root, home, socket] = [join(folder, 'root.raw'), join(folder, 'home.raw'), join(folder, 'socket')];
  writeFileSync(root, randomFillSync(Buffer.alloc(ROOT_BYTES)));
  writeFileSync(home, randomFillSync(Buffer.alloc(HOME_BYTES)));
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
  rmSync(folder, { recursive: true });
});

const uriOf = (name: string) => `nbd+unix:///${name}?socket=${socket}`;
/** A client that is served. */
async function attach() {
  const client = await connect({ kind: 'unix', path: socket }, AbortSignal.timeout(5_000));
  const goal = { kind: 'go', exportName: '' } as const;
  await runHandshake(client, new ClientHandshake(goal), AbortSignal.timeout(5_000));
  return client;
}
const listed = async () => JSON.parse(await succeed('nbdinfo', '--list', '--json', uriOf(''))).exports;

describe('tsnbd serve', () => {
  const serve = async (...options: string[]) => {
    server = await serveExports(socket, '-t', ...options, `root=${root}`, `home=${home}`);
  };

  test.each([[], ['-e', '0']])('shows its exports to nbdinfo, with descriptions (%s %s)', async (...options) => {
    await serve(...options, '-D', 'home=what people keep');
    const [first, second, ...more] = await listed();
    expect(first).toMatchObject({ 'export-name': 'root', 'export-size': ROOT_BYTES });
    expect(first.description).toBeUndefined();
    expect(second).toMatchObject({
      'export-name': 'home',
      'export-size': HOME_BYTES,
      description: 'what people keep',
    });
    expect(more).toEqual([]);
    expect(await succeed('qemu-nbd', '--list', '-k', socket)).toMatch(
      /^exports available: 2\n export: 'root'\n(?:.*\n)* export: 'home'\n {2}description: what people keep\n/,
    );
  });

  test.each(['--debug', '--verbose'])(
    'tells with --debug alone what it negotiates with each client (%s)',
    async (how) => {
      await serve(how);
      await succeed('nbdinfo', '--list', '--no-content', uriOf(''));
      const told = (server?.said() ?? '').match(/^tsnbd: client [0-9]+: [<>] .*$/gm) ?? [];
      if (how === '--verbose') return expect(told).toEqual([]);
      const lists = told.findIndex((line) => line.endsWith(': < NBD_OPT_LIST, 0 bytes'));
      const [client = ''] = /^tsnbd: client [0-9]+: /.exec(told[lists] ?? '') ?? [];
      expect(told.filter((line) => line.startsWith(client)).slice(0, 2)).toEqual([
        `${client}> NBDMAGIC IHAVEOPT, handshake flags 0x3`,
        `${client}< client flags 0x3`,
      ]);
      expect(told.slice(lists + 1, lists + 4)).toEqual([
        `${client}> NBD_REP_SERVER to NBD_OPT_LIST, 8 bytes`,
        `${client}> NBD_REP_SERVER to NBD_OPT_LIST, 8 bytes`,
        `${client}> NBD_REP_ACK to NBD_OPT_LIST, 0 bytes`,
      ]);
    },
  );

  test('is copied from and to by nbdcopy, each export its own image', async () => {
    await serve('-e', '0');
    const before = sha256(root);
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', uriOf('home'), copy);
    expect(sha256(copy)).toBe(sha256(home));

    writeFileSync(copy, randomFillSync(Buffer.alloc(HOME_BYTES)));
    await succeed('nbdcopy', '--flush', copy, uriOf('home'));
    expect(sha256(home)).toBe(sha256(copy));
    await succeed('nbdcopy', uriOf('root'), copy);
    expect([sha256(copy), sha256(root)]).toEqual([before, before]);
    expect((await run('nbdinfo', uriOf('other'))).stderr).toContain('other');
    expect((await run('nbdinfo', uriOf(''))).status).not.toBe(0);
  });

  test('serves no image twice, and none at all when one is missing', async () => {
    const twice = await runTsnbd('serve', '-k', socket, '-f', 'raw', `a=${root}`, `b=${root}`);
    expect(twice).toMatchObject({ status: 5, stderr: expect.stringContaining(`${root} is in use by`) });
    const missing = await runTsnbd('serve', '-k', socket, '-f', 'raw', `a=${root}`, `b=${folder}/none`);
    expect(missing).toMatchObject({ status: 1, stderr: expect.stringContaining(`${folder}/none`) });
    expect(existsSync(socket)).toBe(false);
  });
});

describe('a single image', () => {
  test('has the name and the description that it is given', async () => {
    server = await serveUnix(socket, root, '-t', '-x', 'disk', '-D', 'the only one');
    expect(await listed()).toMatchObject([{ 'export-name': 'disk', description: 'the only one' }]);
    expect(await succeed('nbdinfo', '--size', uriOf('disk'))).toBe(`${ROOT_BYTES}\n`);
    expect((await run('nbdinfo', uriOf(''))).status).not.toBe(0);
  });
});

describe('one client too many', () => {
  test('is told so, at once, in words that reach the user; the next one is served', async () => {
    server = await serveUnix(socket, root, '-t');
    const first = await attach();
    const { status, stderr } = await run('qemu-img', 'info', server.uri);
    expect(status).not.toBe(0);
    expect(stderr).toContain('server reported: a client is served already, no more are allowed');
    expect((await run('nbdinfo', '--size', server.uri)).status).not.toBe(0);

    first.destroy();
    for (let turn = 0; turn < 3; turn += 1) {
      expect(await succeed('nbdinfo', '--size', server.uri)).toBe(`${ROOT_BYTES}\n`);
    }
  });
});

test('a crowd that takes all file descriptors is closed, and once it is gone there is room again', async () => {
  server = await serveUnix(socket, root, '-t', '-e', '0');
  const served = await attach();
  await succeed('prlimit', '--pid', String(server.pid), '--nofile=64:64');
  const crowd = Array.from({ length: 100 }, () => createConnection(socket).on('error', () => {}));
  const closed = () => crowd.filter(({ readyState }) => readyState === 'closed').length;
  for (const each of crowd) each.resume();
  await expect.poll(closed).toBeGreaterThan(20);
  expect(closed()).toBeLessThan(100);
  for (const each of crowd) each.destroy();
  expect(served.readyState).toBe('open');
  await expect.poll(async () => (await run('nbdinfo', '--size', server?.uri ?? '')).stdout).toBe(`${ROOT_BYTES}\n`);
  served.destroy();
});

test('a client that says nothing is given up after as long as --handshake-limit says', async () => {
  server = await serveUnix(socket, root, '-t', '-v', '--handshake-limit=1');
  const silent = await connect({ kind: 'unix', path: socket }, AbortSignal.timeout(5_000));
  const before = performance.now();
  await new Promise((resolve) => silent.once('close', resolve).resume());
  expect(performance.now() - before).toBeLessThan(9_000); // unless told otherwise, it would be 10 s
  const notice = /was not served: cannot begin the negotiation: no answer within the time limit\n/;
  await expect.poll(() => server?.said()).toMatch(notice);
});

describe('a socket that a service manager passes', () => {
  test('is served on, and left to the manager', async () => {
    server = await serveActivated(socket, '-t', '-f', 'raw', '-e', '0', root);
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', server.uri, copy);
    expect(sha256(copy)).toBe(sha256(root));
    expect(await server.stop()).toBe(0);
    expect(server.said()).not.toContain('tsnbd:');
    expect(existsSync(socket)).toBe(true);
  });

  test('goes to tsnbd serve too', async () => {
    server = await serveActivated(socket, 'serve', '-t', '-f', 'raw', `root=${root}`, `home=${home}`);
    expect(await listed()).toMatchObject([{ 'export-name': 'root' }, { 'export-name': 'home' }]);
  });

  test('and an address besides it is an error', async () => {
    server = await serveActivated(socket, '-t', '-p', '4000', root);
    expect(await server.exit).toBe(2);
    expect(server.said()).toContain('option --port: it has no effect with a socket that was passed (LISTEN_FDS)');
  });
});

describe('options of how an image is opened', () => {
  test.each([
    ['--cache=writeback'],
    ['--cache=writethrough'],
    ['--discard=ignore'],
    ['--discard=unmap', '--detect-zeroes=unmap'],
  ])('%s %s', async (...options) => {
    truncateSync(home, HOME_BYTES);
    server = await serveUnix(socket, home, '-t', '-e', '0', ...options);
    const copy = join(folder, 'copy.raw');
    writeFileSync(copy, randomFillSync(Buffer.alloc(HOME_BYTES)));
    await succeed('nbdcopy', '--flush', copy, server.uri);
    expect(sha256(home)).toBe(sha256(copy));
  });

  test('--offset leaves out what comes before', async () => {
    server = await serveUnix(socket, root, '-t', '-e', '0', '--offset=7M');
    const copy = join(folder, 'copy.raw');
    await succeed('nbdcopy', server.uri, copy);
    expect(readFileSync(copy).equals(readFileSync(root).subarray(7 * MIB))).toBe(true);
  });

  test.each([
    [[], 0],
    [['--nocache'], O_DIRECT],
    [['--cache=none'], O_DIRECT],
  ])('%j goes past the page cache if it says so', async (options, direct) => {
    server = await serveUnix(socket, root, '-t', '-e', '0', ...options);
    await succeed('nbdinfo', '--size', server.uri);
    const { pid = 0 } = server;
    const flags = fdsOpenOn(root, pid).map((fd) => openFlags(fd, pid) & O_DIRECT);
    expect(flags).toContain(direct);
    expect(flags.includes(O_DIRECT)).toBe(direct !== 0);
  });
});
