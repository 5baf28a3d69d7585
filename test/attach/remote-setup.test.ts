import { describe, expect, test } from 'vitest';
import { chooseRemoteSetup, inFull, requireUnchanged, untoldExport } from '#tsnbd/attach/remote-setup.js';

const request = {
  kind: 'remote',
  address: { kind: 'unix', path: '/run/disk.sock' },
  exportName: '',
  device: 'nbd0',
  kernelApi: 'auto',
  locksMemory: false,
  blockSizeBytes: undefined,
  requestTimeoutSeconds: 0,
  connections: 1,
  persist: 'where-possible',
  deadTimeoutSeconds: 300,
  retryLimitSeconds: undefined,
  unattended: false,
} as const;
const found = { sizeBytes: 1_048_576, flags: 0x1d };
const blockSizes = (minimum: number, maximumPayload = 33_554_432) => ({
  minimum,
  preferred: Math.max(4096, minimum),
  maximumPayload,
});

describe('a remote export’s device', () => {
  test('has blocks of 512 bytes, the server’s flags, and no time limit unless one is asked for', () => {
    expect(chooseRemoteSetup(request, found)).toEqual({
      setup: {
        sizeBytes: 1_048_576,
        blockSizeBytes: 512,
        flags: 0x1d,
        requestTimeoutSeconds: 0,
        requestBytesMax: undefined,
      },
      notices: [],
    });
    expect(chooseRemoteSetup({ ...request, requestTimeoutSeconds: 7 }, found).setup.requestTimeoutSeconds).toBe(7);
  });

  test('obeys the server’s smallest block, up to the page size', () => {
    const at = (minimum: number) => chooseRemoteSetup(request, { ...found, blockSizes: blockSizes(minimum) });
    expect(at(1).setup.blockSizeBytes).toBe(512);
    expect(at(4096).setup.blockSizeBytes).toBe(4096);
    expect(() => at(8192)).toThrow('the server asks for blocks of 8192 bytes');
  });

  test('has the block size the user asked for, if the server takes such blocks', () => {
    const asked = { ...request, blockSizeBytes: 1024 };
    expect(chooseRemoteSetup(asked, found).setup.blockSizeBytes).toBe(1024);
    expect(() => chooseRemoteSetup(asked, { ...found, blockSizes: blockSizes(2048) })).toThrow(
      'the server takes no blocks smaller than 2048 bytes; 1024 were asked for',
    );
  });

  test('has the size and the state that the user asked for, if the export has so much', () => {
    expect(chooseRemoteSetup({ ...request, sizeBytes: 4096, readOnly: true }, found).setup).toMatchObject({
      sizeBytes: 4096,
      flags: 0x1f,
    });
    expect(() => chooseRemoteSetup({ ...request, sizeBytes: 1_048_577 }, found)).toThrow(
      'the export has 1048576 bytes; 1048577 were asked for',
    );
    expect(() => chooseRemoteSetup({ ...request, sizeBytes: 4096 + 100 }, found)).toThrow(
      'a device of 4196 bytes does not end with a block of 512',
    );
    expect(chooseRemoteSetup(inFull({ ...request, sizeBytes: 4096 }), found).setup.sizeBytes).toBe(1_048_576);
    expect(untoldExport({ ...request, sizeBytes: 4096 })).toEqual({ sizeBytes: 4096, flags: 0x1 });
    expect(() => untoldExport(request)).toThrow('the size has to be given');
  });

  test('sends no request that is larger than the server takes', () => {
    const at = (maximum: number) => chooseRemoteSetup(request, { ...found, blockSizes: blockSizes(1, maximum) });
    expect(at(65_536).setup.requestBytesMax).toBe(65_536);
    expect(() => at(4095)).toThrow('the server takes at most 4095 bytes at once');
  });

  test('is rounded down to whole blocks, and the user is told', () => {
    const odd = chooseRemoteSetup(request, { ...found, sizeBytes: 1_048_576 + 511 });
    expect(odd.setup.sizeBytes).toBe(1_048_576);
    expect(odd.notices).toEqual(['the export has 1049087 bytes, no multiple of 512: the last 511 cannot be reached']);
    expect(() => chooseRemoteSetup(request, { ...found, sizeBytes: 511 })).toThrow('less than one block of 512');
  });
});

describe('an export that a device is given another connection of', () => {
  const device = chooseRemoteSetup(request, found).setup;
  const again = (change: object) => () =>
    requireUnchanged(device, chooseRemoteSetup(request, { ...found, ...change }).setup);

  test('has the same size or more, and does what the kernel asks by its flags; what a newer server can beyond that is no matter', () => {
    expect(again({})).not.toThrow();
    expect(again({ flags: 0x1d | 0x100 | 0x400 })).not.toThrow();
    expect(again({ blockSizes: blockSizes(1) })).not.toThrow();
    expect(again({ sizeBytes: 2_097_152 })).not.toThrow();
  });

  test.each([
    ['is smaller', { sizeBytes: 1_048_064 }, 'it has 1048064 bytes, the device 1048576'],
    ['cannot be written any more', { flags: 0x1f }, 'its flags are 0x1f, and were 0x1d'],
    ['has no flush any more', { flags: 0x19 }, 'its flags are 0x19, and were 0x1d'],
    ['takes only shorter requests', { blockSizes: blockSizes(1, 65_536) }, 'it takes at most 65536 bytes at once'],
  ])('is refused when it %s', (_, change, message) => {
    expect(again(change)).toThrow(`the export has changed, so it is not attached: ${message}`);
  });
});
