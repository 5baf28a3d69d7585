import { execFileSync } from 'node:child_process';
import {
  existsSync,
  constants as fsConstants,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { ImageError, type ImageErrorCode } from '#tsnbd/image/errors.js';
import { fileCalls } from '#tsnbd/image/file-calls.js';
import { ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { imageFrom, type OpenedImage, type OpenOptions, openImage } from '#tsnbd/image/open-image.js';
import { openFlags } from '../open-fds.js';
import { useTemporaryFolder } from './temporary-folder.js';

const inFolder = useTemporaryFolder();
const opened: OpenedImage[] = [];
afterEach(() => {
  for (const image of opened.splice(0)) image.close();
});

const writable: OpenOptions = { format: 'raw', readOnly: false };
const readOnly: OpenOptions = { format: 'raw', readOnly: true };

function open(path: string, options: OpenOptions = writable): OpenedImage {
  const image = openImage(path, options);
  opened.push(image);
  return image;
}

function refused(path: string, options: OpenOptions = writable): ImageError {
  try {
    openImage(path, options).close();
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
  throw new Error(`${path} was opened`);
}

function refusal(path: string, options: OpenOptions = writable): [ImageErrorCode, string] {
  const { code, message } = refused(path, options);
  return [code, message];
}

function makeImage(content: string | Uint8Array, name = 'disk.raw'): string {
  const path = inFolder(name);
  writeFileSync(path, content);
  return path;
}

const fdCount = () => readdirSync('/proc/self/fd').length;

describe('an image is refused', () => {
  it('when it is missing, and is not made', () => {
    const path = inFolder('nothing.raw');
    expect(refusal(path)).toEqual(['missing', `${path} does not exist`]);
    expect(refusal(inFolder('no-folder/disk.raw'))[0]).toBe('missing');
    expect(readdirSync(inFolder('.'))).toEqual([]);
  });

  it('when it is a link to nothing', () => {
    symlinkSync(inFolder('nothing'), inFolder('link'));
    expect(refusal(inFolder('link'))[0]).toBe('missing');
  });

  it('when it is a folder', () => {
    expect(refusal(inFolder('.'))).toEqual([
      'not-an-image',
      `${inFolder('.')} is a folder, neither a file nor a block device`,
    ]);
  });

  it('when its path leads through a file', () => {
    expect(refusal(`${makeImage('x')}/disk`)[0]).toBe('system');
  });

  it('when it is empty', () => {
    const path = makeImage('');
    expect(refusal(path)).toEqual(['not-an-image', `${path} is empty (0 bytes)`]);
  });

  it('when it is a character device or a pipe, which is not waited for', () => {
    expect(refusal('/dev/zero')[1]).toBe('/dev/zero is a character device, neither a file nor a block device');
    execFileSync('mkfifo', [inFolder('pipe')]);
    expect(refusal(inFolder('pipe'), readOnly)).toEqual([
      'not-an-image',
      `${inFolder('pipe')} is a pipe, neither a file nor a block device`,
    ]);
  });

  it('when it is a socket', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(inFolder('socket'), resolve));
    expect(refusal(inFolder('socket'))[1]).toContain('is a socket');
    server.close();
  });

  it('when it is larger than a number can count', () => {
    // Only tmpfs and the like take files so large.
    const path = '/dev/shm/tsnbd-test-huge.raw';
    try {
      writeFileSync(path, '');
      execFileSync('truncate', ['-s', String(2n ** 53n - 512n), path]);
      expect(open(path).sizeBytes).toBe(2 ** 53 - 512);
      opened.pop()?.close();
      for (const size of [2n ** 53n - 511n, 2n ** 53n, 2n ** 62n]) {
        execFileSync('truncate', ['-s', String(size), path]);
        expect(refusal(path)).toEqual(['not-an-image', `${path} is larger than 9007199254740991 bytes`]);
      }
    } finally {
      execFileSync('rm', [path]);
    }
  });

  it('when it cannot be written, with the way out', () => {
    // A running program is such a file, for root too.
    const message = refusal(process.execPath);
    expect(message[0]).toBe('read-only');
    expect(message[1]).toMatch(/for writing: .* \(ETXTBSY\); -r opens it for reading only$/);
    expect(open(process.execPath, readOnly).readOnly).toBe(true);
  });

  it('without leaving an fd open', () => {
    const path = makeImage('QFI\xfb');
    const before = fdCount();
    for (const bad of [inFolder('nothing'), makeImage('', 'empty'), '/dev/zero']) refused(bad);
    writeFileSync(path, Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'));
    refused(path, { readOnly: true });
    open(path);
    refused(path);
    expect(fdCount()).toBe(before + 1);
  });
});

describe('the format', () => {
  it('named by the first bytes is refused by name, with what to do', () => {
    const path = makeImage(Buffer.from('QED\0', 'latin1'));
    for (const readOnly of [true, false]) {
      const [code, message] = refusal(path, { readOnly });
      expect(code).toBe('wrong-format');
      expect(message).toContain(`${path} is a qed image`);
      expect(message).toContain("use -f raw if its bytes really are the disk's");
      expect(message).toContain('qemu-img convert -O qcow2');
    }
  });

  it('is raw if the user says so, whatever the bytes are', () => {
    const path = makeImage(Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(508)]));
    expect(open(path)).toMatchObject({ formatName: 'raw', sizeBytes: 512, notices: [] });
  });

  it('of a VHD of fixed size stands in its last sector', () => {
    const footer = Buffer.concat([Buffer.from('conectix'), Buffer.alloc(504)]);
    expect(refusal(makeImage(Buffer.concat([Buffer.alloc(4096), footer])), { readOnly: true })[1]).toContain('vhd');
    open(makeImage(Buffer.concat([footer.subarray(8), footer, Buffer.alloc(512)])), { readOnly: true });
  });

  it('of a file shorter than a sector is looked at too', () => {
    expect(refusal(makeImage(Buffer.from('LUKS\xba\xbe', 'latin1')), { readOnly: true })[1]).toContain('luks');
    expect(open(makeImage('x'), { readOnly: true }).sizeBytes).toBe(512);
  });
});

describe('the size', () => {
  it.each([
    [1, 512],
    [511, 512],
    [512, 512],
    [513, 1024],
    [1_000_001, 1_000_448],
  ])('of a file of %i bytes is %i, as of qemu-nbd', (fileBytes, sizeBytes) => {
    const path = makeImage('');
    truncateSync(path, fileBytes);
    const image = open(path);
    expect(image.sizeBytes).toBe(sizeBytes);
    expect(imageFrom(image.handle).sizeBytes).toBe(sizeBytes);
    expect(image.notices.length).toBe(fileBytes === sizeBytes ? 0 : 1);
  });

  it('that is no multiple of 512 is said', () => {
    const path = makeImage('');
    truncateSync(path, 700);
    const said = `${path} has 700 bytes, no multiple of 512: it is shown as 1024; the rest reads as zeroes`;
    expect(open(path, readOnly).notices).toEqual([said]);
    opened.pop()?.close();
    expect(open(path).notices).toEqual([`${said}, and a write there makes the file so large`]);
    expect(statSync(path).size).toBe(700);
  });
});

describe('the locks', () => {
  const lockedBytes = (path: string) => {
    const { ino } = statSync(path);
    return readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .filter((line) => line.includes('OFDLCK') && line.includes(`:${ino} `))
      .flatMap((line) => {
        const [first = 0, last = 0] = line.split(' ').slice(-2).map(Number);
        return Array.from({ length: last - first + 1 }, (_, i) => first + i);
      })
      .sort((a, b) => a - b);
  };

  it('are those of QEMU, and nobody may write beside a writer', () => {
    const path = makeImage(Buffer.alloc(1024));
    open(path);
    expect(lockedBytes(path)).toEqual([100, 101, 201, 203]);
    opened.pop()?.close();
    expect(lockedBytes(path)).toEqual([]);
    open(path, readOnly);
    expect(lockedBytes(path)).toEqual([100, 203]);
    opened.pop()?.close();
    truncateSync(path, 1000);
    open(path, readOnly);
    expect(lockedBytes(path)).toEqual([100, 203]);
    opened.pop()?.close();
    open(path);
    expect(lockedBytes(path)).toEqual([100, 101, 103, 201, 203]);
  });

  it('refuse a second writer, in our own process too, and name it', () => {
    const path = makeImage(Buffer.alloc(1024));
    open(path);
    const [code, message] = refusal(path);
    expect(code).toBe('in-use');
    expect(message).toContain(`${path} is in use by `);
    expect(message).toContain(`(process ${process.pid}), which lets nobody else write to it`);
    opened.pop()?.close();
    open(path);
  });

  it('let readers in beside readers, and beside a writer, who is named', () => {
    const path = makeImage(Buffer.alloc(1024));
    expect(open(path, readOnly).notices).toEqual([]);
    expect(open(path, readOnly).notices).toEqual([]);
    open(path);
    const [notice] = open(path, readOnly).notices;
    expect(notice).toContain(`(process ${process.pid}): what is read may not fit together`);
    expect(notice).toContain(`${path} is written to by `);
  });

  it('keep readers and a writer that may grow the file apart, in either order', () => {
    const path = makeImage(Buffer.alloc(1000));
    open(path, readOnly);
    expect(refusal(path)[1]).toMatch(/which lets nobody else resize it$/);
    opened.pop()?.close();
    open(path);
    expect(refusal(path, readOnly)[1]).toMatch(/which lets nobody else resize it$|which may resize it$/);
  });

  it('are by the file, not by its name', () => {
    const path = makeImage(Buffer.alloc(1024));
    symlinkSync(path, inFolder('link'));
    open(path);
    expect(refusal(inFolder('link'))[0]).toBe('in-use');
  });
});

describe('an opened image', () => {
  it('is the same disk in every worker, and stays open when one of them ends', async () => {
    const path = makeImage(Buffer.alloc(4096));
    const image = open(path);
    const here = imageFrom(image.handle);
    expect(here.write(0, 5, Buffer.from('hello'), 0, true)).toBe(0);
    const worker = new Worker(
      new URL(
        `data:text/javascript,${encodeURIComponent(`
          import { workerData, parentPort } from 'node:worker_threads';
          const { imageFrom } = await import(workerData.module);
          const image = imageFrom(workerData.handle);
          const got = Buffer.alloc(5);
          const read = image.read(0, 5, got, 0);
          const written = image.write(512, 5, Buffer.from('world'), 0, true);
          image.close();
          parentPort.postMessage([image.sizeBytes, image.readOnly, read, got.toString(), written]);
        `)}`,
      ),
      { workerData: { module: import.meta.resolve('#tsnbd/image/open-image.js'), handle: image.handle } },
    );
    const message = await new Promise((resolve, reject) => {
      worker.on('message', resolve);
      worker.on('error', reject);
    });
    expect(message).toEqual([4096, false, 0, 'hello', 0]);
    await worker.terminate();
    const got = Buffer.alloc(5);
    expect(here.read(512, 5, got, 0)).toBe(0);
    expect(got.toString()).toBe('world');
  });

  it('that is read only takes no write', () => {
    const image = imageFrom(open(makeImage('x'), readOnly).handle);
    expect(image.write(0, 1, Buffer.from('y'), 0, false)).toBeGreaterThan(0);
    expect(image.write(0, 1, Buffer.from('y'), 0, true)).toBeGreaterThan(0);
    expect(image.zero(0, 1, ZERO_MAY_PUNCH, false)).toBeGreaterThan(0);
    expect(image.flush()).toBe(0);
  });

  it('tells the block sizes that clients get to know', () => {
    expect(open(makeImage('x')).blockSizes).toEqual({ minimum: 1, preferred: 4096, maximumPayload: 33_554_432 });
  });
});

describe('the cache modes', () => {
  it.each(['writeback', 'none', 'writethrough', 'directsync', 'unsafe'] as const)(
    '%s: the same disk in a worker',
    (cache) => {
      const path = makeImage(Buffer.alloc(8192, 1));
      const { handle, notices } = open(path, { ...writable, cache });
      expect(notices.join()).toBe(
        cache === 'unsafe'
          ? `${path} is opened as unsafe: a flush is answered at once, and a crash of this machine may ruin it`
          : '',
      );
      const image = imageFrom(structuredClone(handle));
      expect(image.write(100, 5, Buffer.from('hello'), 0, false)).toBe(0);
      expect(image.flush()).toBe(0);
      expect(image.trim(4096, 4096, true)).toBe(0);
      const got = Buffer.alloc(7);
      expect(image.read(99, 7, got, 0)).toBe(0);
      expect(got.toString('latin1')).toBe('\x01hello\x01');
      expect(readFileSync(path).subarray(99, 106).equals(got)).toBe(true);
      image.close();
    },
  );

  it.each([
    ['writeback', ['', 'O_DSYNC'], 1],
    ['none', ['O_DIRECT', 'O_DIRECT O_DSYNC'], 1],
    ['writethrough', ['O_DSYNC', 'O_DSYNC'], 1],
    ['directsync', ['O_DIRECT O_DSYNC', 'O_DIRECT O_DSYNC'], 1],
    ['unsafe', ['', ''], 0],
  ] as const)(
    '%s: a write, and one with FUA, go to fds with the flags %j, and a flush syncs %i times',
    (cache, expected, syncs) => {
      const { handle } = open(makeImage(Buffer.alloc(8192, 1)), { ...writable, cache });
      const written: string[] = [];
      let synced = 0;
      const image = imageFrom(handle, {
        ...fileCalls,
        write: (fd, ...call) => {
          const bits = openFlags(fd);
          written.push((['O_DIRECT', 'O_DSYNC'] as const).filter((flag) => (bits & fsConstants[flag]) !== 0).join(' '));
          return fileCalls.write(fd, ...call);
        },
        sync: (fd) => {
          synced += 1;
          return fileCalls.sync(fd);
        },
      });
      for (const durable of [false, true]) expect(image.write(0, 4096, Buffer.alloc(4096), 0, durable)).toBe(0);
      expect(written).toEqual(expected);
      expect(synced).toBe(0);
      expect(image.flush()).toBe(0);
      expect(synced).toBe(syncs);
      image.close();
    },
  );

  it('can be had read-only, where unsafe has nothing to say', () => {
    const path = makeImage(Buffer.alloc(8192, 1));
    for (const cache of ['none', 'unsafe'] as const) {
      const { handle, notices } = open(path, { ...readOnly, cache });
      expect(notices).toEqual([]);
      const image = imageFrom(handle);
      const got = Buffer.alloc(3);
      expect(image.read(8189, 3, got, 0)).toBe(0);
      expect([...got]).toEqual([1, 1, 1]);
      for (const durable of [true, false]) expect(image.write(0, 1, got, 0, durable)).toBeGreaterThan(0);
      expect(image.flush()).toBe(0);
      image.close();
    }
  });

  it('and discard and zero detection reach the disk below', () => {
    const path = makeImage(Buffer.alloc(1 << 20, 1));
    const blocks = () => statSync(path).blocks;
    const full = blocks();
    const zeroes = Buffer.alloc(1 << 19);
    const write = (options: Partial<OpenOptions>) => {
      const image = imageFrom(open(path, { ...writable, ...options }).handle);
      expect(image.write(0, zeroes.length, zeroes, 0, true)).toBe(0);
      expect(image.trim(1 << 19, 1 << 19, true)).toBe(0);
      image.close();
      opened.pop()?.close();
      return blocks();
    };
    expect(write({ discard: 'ignore', detectZeroes: 'unmap' })).toBe(full);
    expect(readFileSync(path).indexOf(1)).toBe(1 << 19);
    expect(write({ discard: 'unmap', detectZeroes: 'off' })).toBeLessThanOrEqual(full - 1024);
    expect(write({ detectZeroes: 'unmap' })).toBe(0);
  });
});

it('a block device is not opened to become itself', () => {
  const disk = readdirSync('/sys/block').find((name) => existsSync(`/dev/${name}`)) ?? 'no disk in /dev';
  expect(refusal(`/dev/${disk}`, { ...readOnly, becomes: disk })).toEqual([
    'own-device',
    `/dev/${disk} lies on /dev/${disk}, the device that it was to become`,
  ]);
  open(makeImage('x'), { ...writable, becomes: disk === 'nbd0' ? 'nbd1' : 'nbd0' });
});
