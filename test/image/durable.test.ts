import {
  closeSync,
  constants as fsConstants,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { type FileCalls, fileCalls } from '#tsnbd/image/file-calls.js';
import { ZERO_MAY_PUNCH } from '#tsnbd/image/image.js';
import { RawImage } from '#tsnbd/image/raw.js';
import { newSharedFields } from '#tsnbd/image/shared-layout.js';
import { openFdsOf, openFlags } from '../open-fds.js';
import { useRawWorkers } from './raw-workers.js';

const { EBADF, EIO, EMFILE, ENOSPC } = constants.errno;
const workers = useRawWorkers();
const sector = new Uint8Array(512).fill(7);

const isDurable = (fd: number) => (openFlags(fd) & fsConstants.O_DSYNC) !== 0;

/** `first` once, then what the file system answers. */
function onceInstead(first: () => number): (later: () => number) => number {
  let calls = 0;
  return (later) => (calls++ === 0 ? first() : later());
}

const noSecondFd: Partial<FileCalls> = { reopen: () => -EMFILE };

/** As the kernel does: it tells once of a write that it lost, then calls the pages clean. */
function failingSync(errno: number): Partial<FileCalls> {
  const instead = onceInstead(() => -errno);
  return { sync: (fd) => instead(() => fileCalls.sync(fd)) };
}

/** Durable writes by a second fd fail once. */
function failingDurableWrite(errno: number): Partial<FileCalls> {
  const instead = onceInstead(() => -errno);
  return {
    write: (fd, ...call) =>
      isDurable(fd) ? instead(() => fileCalls.write(fd, ...call)) : fileCalls.write(fd, ...call),
  };
}

describe('durable', () => {
  it.each([
    ['an O_DSYNC write by a second fd', {}, 'write O_DSYNC-write fallocate sync fallocate sync sync O_DSYNC-write'],
    [
      'a sync after the data where there can be no second fd',
      noSecondFd,
      'write write sync fallocate sync fallocate sync sync write sync',
    ],
  ])('means %s, before the answer', (_, calls, expected) => {
    const log: string[] = [];
    const { image } = workers(4096, {
      ...calls,
      write: (fd, ...call) => {
        log.push(isDurable(fd) ? 'O_DSYNC-write' : 'write');
        return fileCalls.write(fd, ...call);
      },
      fallocate: (...call) => {
        log.push('fallocate');
        return fileCalls.fallocate(...call);
      },
      sync: (fd) => {
        log.push('sync');
        return fileCalls.sync(fd);
      },
    });
    image.write(0, 512, sector, 0, false);
    image.write(0, 512, sector, 0, true);
    image.zero(0, 512, ZERO_MAY_PUNCH, true);
    image.trim(0, 512, true);
    image.flush();
    image.write(512, 512, sector, 0, true);
    expect(log.join(' ')).toBe(expected);
  });

  it('opens the second fd when it is wanted, one for each worker, and closes it with the worker', () => {
    const { image, second, path } = workers(4096, {}, {});
    const before = openFdsOf(path);
    image.write(0, 512, sector, 0, false);
    expect(openFdsOf(path)).toBe(before);
    image.write(0, 512, sector, 0, true);
    image.write(0, 512, sector, 0, true);
    expect(openFdsOf(path)).toBe(before + 1);
    second.write(0, 512, sector, 0, true);
    expect(openFdsOf(path)).toBe(before + 2);
    image.close();
    image.close();
    second.close();
    expect(openFdsOf(path)).toBe(before);
  });

  it('does not open a read-only image for writing', () => {
    const { path, handle } = workers(4096);
    const fd = openSync(path, 'r');
    const image = new RawImage({ ...handle, fd, readOnly: true });
    expect(image.write(0, 512, sector, 0, true)).toBe(EBADF);
    expect(image.write(0, 512, sector, 0, false)).toBe(EBADF);
    closeSync(fd);
  });

  it('writes to the same file, whatever its name has become', () => {
    const { image, fd, path } = workers(4096, {});
    renameSync(path, `${path}.moved`);
    writeFileSync(path, 'another');
    unlinkSync(`${path}.moved`);
    expect(image.write(0, 512, sector, 0, true)).toBe(0);
    expect(readFileSync(path, 'utf8')).toBe('another');
    expect(fstatSync(fd).nlink).toBe(0);
    const target = new Uint8Array(512);
    expect(image.read(0, 512, target, 0)).toBe(0);
    expect(target).toEqual(sector);
  });
});

describe('after one failed sync', () => {
  const durableWrite = (image: RawImage) => image.write(0, 512, sector, 0, true);

  it.each([
    ['a flush', failingSync(ENOSPC), ENOSPC, (image: RawImage) => image.flush()],
    ['a write with FUA', { ...noSecondFd, ...failingSync(ENOSPC) }, ENOSPC, durableWrite],
    ['a zero with FUA', failingSync(EIO), EIO, (image: RawImage) => image.zero(0, 512, ZERO_MAY_PUNCH, true)],
    ['a trim with FUA', failingSync(EIO), EIO, (image: RawImage) => image.trim(0, 512, true)],
    ['an O_DSYNC write', failingDurableWrite(EIO), EIO, durableWrite],
    [
      'an O_DSYNC write that may not have begun, and the sync that was to tell',
      { ...failingDurableWrite(ENOSPC), ...failingSync(EIO) },
      ENOSPC,
      durableWrite,
    ],
  ])('(%s) nothing is acknowledged as written on any connection, until the image is opened again', (...row) => {
    const [, calls, errno, act] = row;
    const { image, second, handle } = workers(4096, calls, {});
    expect(second.flush()).toBe(0);
    expect(durableWrite(second)).toBe(0);
    expect(act(image)).toBe(errno);
    for (const each of [image, second, new RawImage(handle)]) {
      expect(each.flush()).toBe(EIO);
      expect(each.write(0, 512, sector, 0, false)).toBe(EIO);
      expect(durableWrite(each)).toBe(EIO);
      expect(each.zero(0, 512, ZERO_MAY_PUNCH, false)).toBe(EIO);
      expect(each.trim(0, 512, false)).toBe(EIO);
      expect(each.read(0, 512, new Uint8Array(512), 0)).toBe(0);
    }
    const reopened = new RawImage({ ...handle, shared: newSharedFields() });
    expect(durableWrite(reopened)).toBe(0);
    expect(reopened.flush()).toBe(0);
    reopened.close();
  });

  it.each([
    ['a durable write', (image: RawImage) => durableWrite(image)],
    ['a flush', (image: RawImage) => image.flush()],
  ])('%s that was under way on another connection is not acknowledged', (_, act) => {
    const failMeanwhile = () => expect(durableWrite(second)).toBe(EIO);
    const { image, second } = workers(
      4096,
      {
        write: (...call) => {
          failMeanwhile();
          return fileCalls.write(...call);
        },
        sync: () => {
          failMeanwhile();
          return 0;
        },
      },
      failingDurableWrite(EIO),
    );
    expect(act(image)).toBe(EIO);
  });

  it('an O_DSYNC write that had not begun, for the disk was full, is no failed sync', () => {
    const { image, second } = workers(4096, failingDurableWrite(ENOSPC), {});
    expect(durableWrite(image)).toBe(ENOSPC);
    expect(durableWrite(image)).toBe(0);
    expect(second.flush()).toBe(0);
  });
});
