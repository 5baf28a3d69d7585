import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { assertQuietKernel, type Background, background, memoryDir, ok, run, until } from './guest.js';
import {
  expectFree,
  expectNothingLeft,
  isSocket,
  listensOn,
  newImage,
  ROOT,
  startServer,
  TWO_PARTITIONS,
  testProgram,
  tsnbd,
  tsnbdClient,
  tsnbdClientHere,
} from './programs.js';

const servers: Background[] = [];
async function serve(command: string, ready: string): Promise<Background> {
  const server = await startServer(command, ready);
  servers.push(server);
  return server;
}

/** Serves by a unix socket that nobody used before: a dead server leaves its file. */
async function serveAt(command: (socket: string) => string): Promise<string> {
  const socket = `${await memoryDir('socket')}/sock`;
  await serve(command(socket), isSocket(socket));
  return socket;
}

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop('KILL')));
  await expectNothingLeft();
  await assertQuietKernel();
});

/** An image with two partitions; a file system with a file on the second; and a qcow2 of the same content. */
let folder = '';
let sum = '';
beforeAll(async () => {
  const image = await newImage('96M');
  folder = image.replace('/disk.raw', '');
  await ok(`mkdir ${folder}/mnt && ${TWO_PARTITIONS} | sfdisk -q --no-tell-kernel ${image}`);
  await ok(`${tsnbd} -c /dev/nbd0 -f raw ${image} && mkfs.ext4 -q /dev/nbd0p2 && mount /dev/nbd0p2 ${folder}/mnt`);
  await ok(`head -c 20000000 /dev/urandom >${folder}/mnt/random`);
  sum = await ok(`sha256sum ${folder}/mnt/random`);
  await ok(`umount ${folder}/mnt && ${tsnbd} -d /dev/nbd0`);
  await ok(`qemu-img convert -f raw -O qcow2 ${image} ${folder}/disk.qcow2`);
});

/** What an attach says; nothing else comes before its end. Only by netlink it names the device, as nbd-client does; `auto` is ours. */
const said = (operands: string) => ({
  stdout: operands.includes(' auto')
    ? '/dev/nbd0\n'
    : `Negotiation: ..size = 96MB\n${/ -L\b/.test(operands) ? '' : 'Connected /dev/nbd0\n'}`,
  stderr: 'bs=512, sz=100663296 bytes\n',
});

/** What the server has is the image: the partitions are there, and so is the file; it can write. */
async function expectOurDisk(): Promise<void> {
  await ok(`mount /dev/nbd0p2 ${folder}/mnt`);
  expect(await ok(`sha256sum ${folder}/mnt/random`)).toBe(sum);
  await ok(`date >${folder}/mnt/written && sync && umount ${folder}/mnt`);
}

const UNCOUNTED = 'tsnbd-client: nobody counted writes that failed: /dev/nbd0 was a remote device\n';

/** In the background: usable when the command returns, until another command detaches. */
async function expectAttached(operands: string): Promise<void> {
  expect(await run(`${tsnbdClient} ${operands}`)).toEqual({ status: 0, ...said(operands) });
  await expectOurDisk();
  expect(await run(`${tsnbdClient} -d /dev/nbd0`)).toEqual({
    status: 0,
    stdout: 'disconnect, sock, done\n',
    stderr: UNCOUNTED,
  });
  await expectFree();
}

/** In the foreground, until SIGTERM: starting Node is what takes the time in the guest. */
async function expectServed(operands: string): Promise<void> {
  const client = await background(`exec ${tsnbdClientHere} ${operands}`);
  await vi.waitFor(() => expect(client.output()).toEqual(said(operands)), 60_000);
  await expectOurDisk();
  expect(await client.stop()).toEqual({ status: 0, ...said(operands) });
  await expectFree();
}

describe('an export becomes a disk when it is served by', () => {
  test('tsnbd, over TCP (IPv4 and IPv6), by address and by name', async () => {
    await serve(`${tsnbd} -t --bind=127.0.0.1 --port=4000 -f raw ${folder}/disk.raw`, listensOn(4000));
    await expectAttached('127.0.0.1 4000 /dev/nbd0');
    await expectServed('localhost 4000 nbd0 -N "" -L');
    await servers.pop()?.stop();
    await serve(`${tsnbd} -t --bind=::1 --port=4000 -f raw ${folder}/disk.raw`, listensOn(4000));
    await expectServed('::1 4000 /dev/nbd0');
  });

  test('tsnbd, over a unix socket, until its last client leaves', async () => {
    const server = await serve(`${tsnbd} -k ${folder}/sock -f raw ${folder}/disk.raw`, isSocket(`${folder}/sock`));
    await expectAttached(`-unix ${folder}/sock /dev/nbd0 -L`);
    expect(await server.result).toMatchObject({ status: 0, stderr: '' });
    await ok(`test ! -e ${folder}/sock`);
  });

  test('nbd-server, by name', async () => {
    const config = `[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\nport = 4001\n[disk]\nexportname = ${folder}/disk.raw\n`;
    await ok(`printf '${config.replaceAll('\n', '\\n')}' >${folder}/nbd-server.conf`);
    await ok(`nbd-server -C ${folder}/nbd-server.conf -p ${folder}/nbd-server.pid`);
    await until(listensOn(4001));
    expect(await ok(`${tsnbdClient} -l 127.0.0.1 4001`)).toBe('Negotiation: ..\ndisk');
    await expectServed('127.0.0.1 4001 /dev/nbd0 -name disk');
    const unknown = await run(`${tsnbdClient} 127.0.0.1 4001 /dev/nbd0 -N nonesuch`);
    expect(unknown).toMatchObject({ status: 6, stdout: '' });
    expect(unknown.stderr).toMatch(/^tsnbd-client: .*nonesuch.*\n$/);
    await ok(`kill $(cat ${folder}/nbd-server.pid)`);
  });

  test('qemu-nbd, from a qcow2, over TCP and a unix socket', async () => {
    await serve(`qemu-nbd -t -f qcow2 -x disk -b 127.0.0.1 -p 4002 ${folder}/disk.qcow2`, listensOn(4002));
    await expectServed('127.0.0.1 4002 auto -N disk');
    await servers.pop()?.stop();
    await serve(`qemu-nbd -f qcow2 -k ${folder}/qemu ${folder}/disk.qcow2`, isSocket(`${folder}/qemu`));
    await expectServed(`-u ${folder}/qemu /dev/nbd0`);
  });

  test('nbdkit, over TCP and a unix socket', async () => {
    await serve(`nbdkit -f -i 127.0.0.1 -p 4003 -e disk file ${folder}/disk.raw`, listensOn(4003));
    await expectServed('127.0.0.1 4003 /dev/nbd0 -N disk');
    await expectServed(`-unix ${await serveAt((socket) => `nbdkit -f -U ${socket} file ${folder}/disk.raw`)} nbd0`);
  });

  test('a server that takes only larger blocks and short requests: both are obeyed', async () => {
    const sizes =
      'blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=65536 blocksize-error-policy=error';
    const strict = await serveAt((socket) => `nbdkit -f -U ${socket} --filter=blocksize-policy memory 64M ${sizes}`);
    const { stderr } = await run(`${tsnbdClient} -unix ${strict} /dev/nbd0`);
    expect(stderr).toBe('bs=4096, sz=67108864 bytes\n');
    expect(await ok('cat /sys/block/nbd0/queue/logical_block_size /sys/block/nbd0/queue/max_sectors_kb')).toBe(
      '4096\n64',
    );
    await ok('dd if=/dev/urandom of=/dev/nbd0 bs=1M count=8 oflag=direct status=none');
    await ok(`${tsnbdClient} -d nbd0`);
    await servers.pop()?.stop('KILL');

    const lenient = await serveAt((socket) => `nbdkit -f -U ${socket} memory 64M`);
    await ok(`${tsnbdClient} -unix ${lenient} /dev/nbd0`);
    expect(await ok('cat /sys/block/nbd0/queue/logical_block_size /sys/block/nbd0/queue/max_sectors_kb')).toBe(
      '512\n128',
    );
    await ok(`${tsnbdClient} -d nbd0`);
  });
});

describe('tsnbd-client', () => {
  test('-c says whether a device is attached, and by which process, as nbd-client does', async () => {
    const socket = await serveAt((path) => `nbdkit -f -U ${path} memory 16M`);
    expect(await run(`${tsnbdClient} -c /dev/nbd0`)).toEqual({ status: 1, stdout: '', stderr: '' });
    await ok(`${tsnbdClient} -unix ${socket} /dev/nbd0 -timeout 45 -b 4096 -C 2`);
    expect(await ok('cat /sys/block/nbd0/queue/io_timeout /sys/block/nbd0/queue/logical_block_size')).toBe(
      '45000\n4096',
    );
    expect(await ok(`${tsnbd} status nbd0`)).toMatch(/^connections: 2$/m);
    const pid = await ok('pgrep -f attach-process.js');
    expect(await run(`${tsnbdClient} -check nbd0`)).toEqual({ status: 0, stdout: `${pid}\n\n`, stderr: '' });
    await ok(`${tsnbdClient} -disconnect nbd0`);
    expect((await run(`${tsnbdClient} -unix ${socket} nbd0 -verbose && ${tsnbdClient} -d nbd0`)).stderr).toContain(
      'tsnbd-client: negotiate\n',
    );
    expect(await run(`${tsnbdClient} -check nbd0`)).toMatchObject({ status: 1 });
  });

  test('called as nbd-client knows no status but 1 for a failure', async () => {
    await ok(`ln -sf ${tsnbdClient} ${folder}/nbd-client`);
    expect((await run(`${tsnbdClient} -unix ${folder}/nowhere /dev/nbd0 --nonsense`)).status).toBe(2);
    expect((await run(`${folder}/nbd-client -unix ${folder}/nowhere /dev/nbd0 --nonsense`)).status).toBe(1);
  });

  test('detaches a device that another program attached, and says when there is nothing to detach', async () => {
    const socket = await serveAt((path) => `nbdkit -f -U ${path} memory 16M`);
    await ok(`nbd-client -L -unix ${socket} /dev/nbd0`);
    await until('test -e /sys/block/nbd0/pid');
    await ok(`${tsnbdClient} -d /dev/nbd0`);
    await expectFree();
    await ok(`${tsnbdClient} -d /dev/nbd0`);
  });

  test('with --no-persist has no process behind it, and works until it is detached', async () => {
    const socket = await serveAt((path) => `nbdkit -f -U ${path} memory 16M`);
    const operands = `-unix ${socket} /dev/nbd0 --no-persist`;
    expect(await run(`${tsnbdClient} ${operands}`)).toMatchObject({ status: 0, stderr: 'bs=512, sz=16777216 bytes\n' });
    expect(await ok('cat /sys/block/nbd0/backend; pgrep -fa "tsnbd-client|process.js" || true')).toMatch(/:alone$/);
    await ok('dd if=/dev/urandom of=/dev/nbd0 bs=64k count=4 oflag=direct status=none');
    expect(await run(`${tsnbdClient} -d nbd0`)).toEqual({
      status: 0,
      stdout: 'disconnect, sock, done\n',
      stderr: UNCOUNTED,
    });
    await expectFree();
  });

  test.each(['ioctl', 'netlink'])(
    'by %s, when nobody connects again, the foreground ends with status 8 when the server is lost; by ioctl the device goes in the background too',
    async (api) => {
      const socket = await serveAt((path) => `nbdkit -f -U ${path} memory 16M`);
      const client = await background(
        `exec ${tsnbdClient} -n -no-persist -unix ${socket} /dev/nbd0 -kernel-api ${api}`,
      );
      await vi.waitFor(() => expect(client.output().stderr).toContain('sz=16777216 bytes'), 20_000);
      await servers.pop()?.stop('KILL');
      const { status, stderr } = await client.result;
      expect(status).toBe(8);
      expect(stderr).toMatch(/tsnbd-client: the connection of \/dev\/nbd0 was lost; the device is gone\n$/);

      const another = await serveAt((path) => `nbdkit -f -U ${path} memory 16M`);
      // By netlink nothing stays in the background that could see it.
      if (api === 'ioctl') await ok(`${tsnbdClient} -unix ${another} /dev/nbd0 -kernel-api ioctl`);
      await servers.pop()?.stop('KILL');
    },
  );
});

test('the user decides size, state and negotiation in place of the server', async () => {
  const told = await serveAt((path) => `nbdkit -f -U ${path} memory 16M`);
  const { status, stderr } = await run(`${tsnbdClient} -unix ${told} nbd0 -B 8M -R -g -debug`);
  expect(status).toBe(0);
  expect(stderr).toMatch(/^tsnbd-client: > NBD_OPT_EXPORT_NAME, /m);
  expect(await ok('cat /sys/block/nbd0/size /sys/block/nbd0/ro')).toBe('16384\n1');
  await ok(`${tsnbdClient} -d nbd0`);
  const untold = await serveAt((path) => `node ${ROOT}/test/kernel/peers/untold-server.js ${path}`);
  await ok(`${tsnbdClient} -unix ${untold} nbd0 -preinit -R -B 1M timeout=20 2>&1`);
  expect(await ok('head -c 1M /dev/nbd0 | tr -d u | wc -c; cat /sys/block/nbd0/size')).toBe('0\n2048');
  await ok(`${tsnbdClient} -d nbd0`);
});

describe('a server', () => {
  test('that does not answer while its client is killed: nothing stays attached', async () => {
    const hostile = await memoryDir('hostile');
    const socket = `${hostile}/never-answers-a-read`;
    await serve(`node ${testProgram('hostile-server')} ${hostile}`, isSocket(socket));
    const client = await background(`exec ${tsnbdClient} -unix ${socket} /dev/nbd0`);
    await until('test -e /run/tsnbd/nbd0.json');
    expect((await client.stop('KILL')).status).toBe(137);
    await expectNothingLeft();
    const foreground = await background(`exec ${tsnbdClientHere} -unix ${socket} /dev/nbd0`);
    await until('test -e /run/tsnbd/nbd0.json');
    const { status, stderr } = await foreground.stop('INT');
    expect(stderr).toMatch(/tsnbd-client: interrupted; nothing stays attached\n$/);
    expect(status).toBe(1);
  });

  test('that is not there', async () => {
    const refused = await run(`${tsnbdClient} 127.0.0.1 4999 /dev/nbd0`);
    expect(refused).toMatchObject({ status: 6, stdout: '' });
    expect(refused.stderr).toMatch(/^tsnbd-client: cannot connect to 127.0.0.1 port 4999: connection refused.*\n$/);
    const absent = await run(`${tsnbdClientHere} -unix ${folder}/nowhere /dev/nbd0`);
    expect(absent).toMatchObject({ status: 1, stdout: '' });
  });
});

test('of several connections there are as many as the server allows, which is told', async () => {
  const attach = async (filter: string) => {
    const socket = await serveAt((path) => `nbdkit -f -U ${path} ${filter}`);
    const { status, stderr } = await run(`${tsnbdClient} -unix ${socket} nbd0 -C 3`);
    expect(status).toBe(0);
    const connections = await ok(`${tsnbd} status nbd0 | grep ^connections:; ${tsnbd} -d nbd0 >&2`);
    return [stderr, connections];
  };
  expect(await attach('memory 16M')).toEqual([expect.not.stringContaining('of 3'), 'connections: 3']);
  expect(await attach('--filter=multi-conn memory 16M multi-conn-mode=disable')).toEqual([
    expect.stringContaining('1 of 3 connections: the server does not say that more than one is safe'),
    'connections: 1',
  ]);
  expect(await attach('--filter=limit memory 16M limit=2')).toEqual([
    expect.stringMatching(/^tsnbd-client: 2 of 3 connections: .+$/m),
    'connections: 2',
  ]);
});
