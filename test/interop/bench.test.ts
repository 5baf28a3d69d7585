import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { boundAttach } from '../../bench/bound/build.js';
import { isOnDisk } from '../../bench/image.js';
import { nbdkit } from './peers.js';
import { type Ran, run } from './served.js';

const BENCH = fileURLToPath(new URL('../../bench/run.js', import.meta.url));
/** The bench wants a disk: only there anything is ever cold. */
const PLACE = '/var/tmp';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(PLACE, 'tsnbd-bench-test-'));
  mkdirSync(join(folder, 'work'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const PEERS = ['nbdkit', 'qemu-nbd', 'nbd-server'];

/** A run as short as can be, of which no figure says anything. */
const bench = (...options: string[]): Promise<Ran> => {
  const places = ['--folder', join(folder, 'work'), '--results', join(folder, 'results')];
  return run(
    process.execPath,
    BENCH,
    ...places,
    '--quick',
    '--no-kernel',
    '--seconds',
    '0.1',
    '--size',
    '8',
    ...options,
  );
};
const isLeft = () => readdirSync(join(folder, 'work'));

test.runIf(isOnDisk(PLACE))(
  'a run of the bench compares bytes first, says what it ran on, and writes table, data and plot',
  async () => {
    const cold = 'unix randread 64k d16 cold';
    const cases = ['unix randread 4k d16', 'unix nbdcopy read', cold];
    const { status, stdout, stderr } = await bench(
      '--bound',
      '--peers',
      PEERS.join(),
      ...cases.flatMap((name) => ['--only', `^${name}$`]),
    );
    expect({ status, stderr: stderr.replaceAll(/^round .*\n/gm, '') }).toEqual({ status: 0, stderr: '' });
    const isThere = (peer: string) => !stdout.includes(`left out: ${peer} `);
    const servers = ['tsnbd', 'nbdkit', 'qemu-nbd', 'qemu-nbd io_uring', 'nbd-server'].filter(isThere);
    const peers = [...servers, ...['bound', 'bound awake', 'bound by reference'].filter(isThere)];
    const coldPeers = [...servers, ...['bound: the disk', 'bound: the disk, direct'].filter(isThere)];
    expect(stdout).toContain(`sha256 of what was read and written over unix is right: ${peers.join(', ')}\n`);
    expect(stdout).toContain(`sha256 of what was read and written from a disk is right: ${servers.join(', ')}\n`);
    for (const what of [
      'tsnbd',
      'nbdkit',
      'qemu-nbd',
      'nbd-server',
      'nbd-client',
      'fio',
      'nbdcopy',
      'node',
      'kernel',
      'cores',
    ])
      expect(stdout).toMatch(new RegExp(`^${what} +\\S`, 'm'));
    expect(stdout).toMatch(/^net\.core\.wmem_max +[0-9]+$/m);
    expect(stdout).toMatch(/^unix randread 4k d16 .* (meets|MISSES) +1\.60/m);
    expect(stdout).toMatch(/^[0-6] of 6 targets met/m);

    const files = readdirSync(join(folder, 'results')).sort();
    expect(files.map((name) => name.replace(/^.*\./, ''))).toEqual(['json', 'svg', 'txt']);
    const [data = '', plot = '', table = ''] = files.map((name) => readFileSync(join(folder, 'results', name), 'utf8'));
    const { results } = JSON.parse(data);
    expect(results.map(({ name }: { name: string }) => name)).toEqual(cases);
    for (const { name, figures } of results)
      expect(figures.map(({ peer }: { peer: string }) => peer)).toEqual(name === cold ? coldPeers : peers);
    expect(plot).toMatch(/^<svg /);
    expect(stdout).toContain(table.trim().split('\n').at(-1));
    expect(isLeft()).toEqual([]);
  },
);

test.runIf(isOnDisk(PLACE))('a run with a server whose bytes are wrong fails, and has no figures', async () => {
  // It serves zeroes, whatever the image has.
  mkdirSync(join(folder, 'dist'));
  writeFileSync(
    join(folder, 'dist/tsnbd.js'),
    `import { spawn } from 'node:child_process';
    const socket = process.argv[process.argv.indexOf('-k') + 1];
    const server = spawn('nbdkit', ['-f', '-U', socket, 'memory', '16M'], { stdio: 'inherit' });
    process.on('SIGTERM', () => server.kill());
    server.on('exit', (status) => process.exit(status));`,
  );
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  const { status, stdout, stderr } = await bench(
    '--us',
    folder,
    '--peers',
    'nbdkit',
    '--only',
    '^unix randread 4k d16$',
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^bench: failed: .*tsnbd over unix gave other bytes than the image has/m);
  expect(stdout).not.toContain('targets met');
  expect(existsSync(join(folder, 'results'))).toBe(false);
  expect(isLeft()).toEqual([]);
});

test('the least that an attach takes has a connection, or a thread, or fails', async () => {
  const packages = fileURLToPath(new URL('../../node_modules', import.meta.url));
  const program = await boundAttach(folder, packages);
  const server = await nbdkit(folder, 'memory', '1M');
  const socket = join(folder, 'nbdkit.sock');
  const least = async (way: string, path: string) => (await run(process.execPath, program, way, path)).status;
  for (const way of ['alone', 'leaving', 'image']) expect(await least(way, socket)).toBe(0);
  await server.stop();
  for (const way of ['alone', 'leaving']) expect(await least(way, join(folder, 'none'))).toBe(1);
});
