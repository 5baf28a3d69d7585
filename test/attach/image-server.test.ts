import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ImageServer } from '#tsnbd/attach/image-server.js';
import { type OpenedImage, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';
import { SYNC_FAILED } from '#tsnbd/image/shared-layout.js';
import { duplicateFd } from '#tsnbd/kernel/fd-calls.js';
import { loadLibc } from '#tsnbd/kernel/libc.js';
import { isAllReceived } from '#tsnbd/kernel/socket-calls.js';
import { NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE } from '#tsnbd/protocol/constants.js';
import { openedAs } from '../open-fds.js';
import { RawClient } from '../server/raw-client.js';
import { seeded } from '../server/seeded.js';

const SIZE_BYTES = 8_388_608;
const BLOCK_BYTES = 4_096;
const BLOCKS = SIZE_BYTES / BLOCK_BYTES;

let folder = '';
let undo: (() => unknown)[] = [];
beforeEach(() => {
  loadLibc();
  folder = mkdtempSync(join(tmpdir(), 'tsnbd-image-server-'));
});
afterEach(async () => {
  for (const step of undo.reverse()) await step();
  undo = [];
  rmSync(folder, { recursive: true });
});

function open(path: string, options: Partial<OpenOptions>): OpenedImage {
  const image = openImage(path, { readOnly: false, ...options });
  undo.push(() => image.close());
  return image;
}

function serve(image: OpenedImage): { server: ImageServer; client: RawClient } {
  const server = new ImageServer(image);
  server.goOn();
  const client = RawClient.onFd(duplicateFd(server.ends.kernelEnd));
  undo.push(
    () => server.stop(),
    () => client.close(),
  );
  return { server, client };
}

/** What a process does that goes on, in this one: it opens the same open files, and serves at the same ends. */
async function goOnElsewhere(image: OpenedImage, server: ImageServer, path: string, options: Partial<OpenOptions>) {
  await server.halt(10_000);
  const given = new Map([...image.files].map(([name, fd]) => [name, duplicateFd(fd)]));
  const ends = { kernelEnd: duplicateFd(server.ends.kernelEnd), serverEnd: duplicateFd(server.ends.serverEnd) };
  const next = openImage(path, { readOnly: false, ...options, given });
  const nextServer = new ImageServer(next, ends);
  nextServer.goOn();
  undo.push(
    () => next.close(),
    () => nextServer.stop(),
  );
  return { image: next, server: nextServer };
}

const statusOf = (thread: string) => readFileSync(`/proc/self/task/${thread}/status`, 'latin1');

const qcow2 = (path: string, ...options: string[]) =>
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, String(SIZE_BYTES)]);
const raw = (path: string) => {
  writeFileSync(path, '');
  truncateSync(path, SIZE_BYTES);
};

const long = process.env.TSNBD_TEST_LONG === '1';
const HALTS = long ? 20 : 3;

const images: readonly [string, Partial<OpenOptions>, (path: string) => void][] = [
  ['raw', { format: 'raw' }, raw],
  ['raw, past the page cache', { format: 'raw', cache: 'none' }, raw],
  ['qcow2', { format: 'qcow2' }, (path) => qcow2(path, '-o', 'cluster_size=4k')],
  [
    'qcow2 on another, with a data file',
    { format: 'qcow2' },
    (path) => {
      raw(`${path}-base`);
      qcow2(path, '-b', `${path}-base`, '-F', 'raw', '-o', `data_file=${path}-data`);
    },
  ],
  ['a temporary overlay', { format: 'raw', temporary: true }, raw],
];

describe.each(long ? images : images.filter((_, index) => index % 2 === 0))(
  'an image that another goes on with: %s',
  (_, options, make) => {
    test('has every write, in its order, and answers each request once', async () => {
      const path = join(folder, 'disk');
      make(path);
      const image = open(path, options);
      const { server, client } = serve(image);
      const random = seeded(7);
      const model = new Uint8Array(BLOCKS);
      /** By cookie, the number of the request. */
      const expected = new Map<number, Buffer>();
      let sent = 0;
      let stops = false;

      // Requests come in pieces that end anywhere, so that every halt finds the beginning of one.
      const sending = (async () => {
        while (!stops) {
          sent += 1;
          const block = random(64);
          const value = 1 + (sent % 255);
          const at = { offsetBytes: block * BLOCK_BYTES };
          const data = Buffer.alloc(BLOCK_BYTES, value);
          const turn = random(10);
          const asked =
            turn === 0
              ? client.encode({ type: NBD_CMD_TRIM, offsetBytes: SIZE_BYTES / 2, lengthBytes: 65_536 })
              : turn < 4
                ? client.encode({ type: NBD_CMD_READ, ...at, lengthBytes: BLOCK_BYTES })
                : client.encode({ type: NBD_CMD_WRITE, ...at, data });
          expected.set(sent, turn > 0 && turn < 4 ? Buffer.alloc(BLOCK_BYTES, model[block]) : Buffer.alloc(0));
          if (turn >= 4) model[block] = value;
          const cut = random(asked.length);
          client.send(asked.subarray(0, cut));
          if (random(4) === 0) await sleep(1);
          client.send(asked.subarray(cut));
          while (expected.size > 200) await sleep(1);
        }
      })();
      let answered = 0;
      const hearing = (async () => {
        for (; !stops || expected.size > 0; answered += 1) {
          const { error, data, cookie } = await client.reply();
          // Past the page cache each write is answered when it is done.
          expect([error, cookie]).toEqual([0, options.cache === 'none' ? cookie : answered + 1]);
          const wanted = expected.get(cookie);
          if (wanted?.equals(data) !== true) throw new Error(`request ${cookie} was answered with something else`);
          expected.delete(cookie);
          if (expected.size === 0) await sleep(1);
        }
      })();

      let now = { image, server };
      for (let time = 0; time < HALTS; time += 1) {
        const before = answered;
        await expect.poll(() => answered, { interval: 1 }).toBeGreaterThan(before + 20);
        now = await goOnElsewhere(now.image, now.server, path, options);
      }
      stops = true;
      await sending;
      client.send(client.encode({ type: NBD_CMD_FLUSH }));
      expected.set(sent + 1, Buffer.alloc(0));
      await hearing;
      if (options.format === 'qcow2') {
        await now.server.halt(10_000);
        expect(execFileSync('qemu-img', ['check', '-U', path], { encoding: 'utf8' })).toContain('No errors were found');
      }
    });
  },
);

describe('a halt', () => {
  const start = () => {
    const path = join(folder, 'disk');
    raw(path);
    const image = open(path, { format: 'raw' });
    return { image, path, ...serve(image) };
  };

  test('keeps the locks of the image, and what was halted goes on', async () => {
    const { server, client, path, image } = start();
    await client.ask({ type: NBD_CMD_WRITE, offsetBytes: 0, data: Buffer.alloc(BLOCK_BYTES, 9) });
    await server.halt(10_000);
    const given = new Map([...image.files].map(([name, fd]) => [name, duplicateFd(fd)]));
    openImage(path, { format: 'raw', readOnly: false, given }).close();
    expect(() => openImage(path, { format: 'raw', readOnly: false })).toThrow(/is in use/);
    const asked = client.ask({ type: NBD_CMD_READ, offsetBytes: 0, lengthBytes: BLOCK_BYTES });
    expect(await Promise.race([asked, sleep(100, 'silence')])).toBe('silence');
    server.goOn();
    expect((await asked).data.equals(Buffer.alloc(BLOCK_BYTES, 9))).toBe(true);
  });

  test('of a worker that has slept, and was not woken by anything but that', async () => {
    const before = new Set(readdirSync('/proc/self/task'));
    const { server, client } = start();
    await client.ask({ type: NBD_CMD_READ, offsetBytes: 0, lengthBytes: 512 });
    const threads = readdirSync('/proc/self/task').filter((id) => !before.has(id));
    const wakes = () => threads.map((id) => /^voluntary_ctxt_switches:\s+(\d+)$/m.exec(statusOf(id))?.[1]);
    await sleep(1_500); // by then it is idle
    const asleep = wakes();
    await sleep(2_500);
    expect(wakes()).toEqual(asleep);
    await server.halt(10_000);
    server.goOn();
    expect((await client.ask({ type: NBD_CMD_READ, offsetBytes: 0, lengthBytes: 512 })).error).toBe(0);
  });

  test('is refused once what was written was lost', async () => {
    const { server, client, image } = start();
    Atomics.store(image.handle.shared, SYNC_FAILED, 1);
    await expect(server.halt(10_000)).rejects.toMatchObject({ code: 'lost' });
    expect((await client.ask({ type: NBD_CMD_READ, offsetBytes: 0, lengthBytes: 512 })).error).toBe(0);
    expect((await client.ask({ type: NBD_CMD_FLUSH })).error).not.toBe(0);
  });

  test('that takes too long is given up, and the worker goes on, also if it halts then', async () => {
    const { server, client } = start();
    // The beginning of a request is waited for.
    const asked = client.encode({ type: NBD_CMD_READ, offsetBytes: 0, lengthBytes: 512 });
    client.send(asked.subarray(0, 10));
    await expect.poll(() => isAllReceived(server.ends.kernelEnd)).toBe(true);
    await expect(server.halt(300)).rejects.toMatchObject({ code: 'time-limit' });
    client.send(asked.subarray(10));
    expect((await client.reply()).error).toBe(0);
    expect((await client.ask({ type: NBD_CMD_FLUSH })).error).toBe(0);
  });

  test('of an image that is cut off then ends it, and closes both sockets', async () => {
    const { server, client } = start();
    await server.halt(10_000);
    const ends = Object.values(server.ends);
    const sockets = ends.map(openedAs);
    expect(sockets).toEqual([expect.stringMatching(/^socket:/), expect.stringMatching(/^socket:/)]);
    undo.splice(-2, 1); // its stop
    await server.stop();
    expect(ends.filter((fd, index) => openedAs(fd) === sockets[index])).toEqual([]);
    await client.end();
  });
});

const NO_THREAD = fileURLToPath(new URL('./no-thread.js', import.meta.url));
/** Of a child of root, to whom no limit of threads applies. */
const NOBODY = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};

test.runIf(spawnSync('test', ['-r', NO_THREAD], NOBODY).status === 0)(
  'where no thread is to be had, what was halted goes on, what would need one is not halted, and nothing new is served',
  () => {
    const paths = ['one', 'other'].map((name) => join(folder, name));
    for (const path of paths) raw(path);
    chmodSync(folder, 0o755);
    const { stdout, stderr } = spawnSync(process.execPath, [NO_THREAD, ...paths], { ...NOBODY, encoding: 'utf8' });
    const refused = 'ServerError system: no thread can be started: EAGAIN';
    expect({ steps: stdout.trimEnd().split('\n'), stderr }).toEqual({
      steps: [
        'read well',
        'halted',
        'went on',
        'read well',
        refused, // the halt
        'read well',
        refused, // another image
        'no socket is left',
      ],
      stderr: '',
    });
  },
);
