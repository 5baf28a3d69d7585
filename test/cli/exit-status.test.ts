import { describe, expect, test } from 'vitest';
import { AttachError } from '#tsnbd/attach/errors.js';
import { UsageError } from '#tsnbd/cli/errors.js';
import { EXIT_STATUSES, exitReasonOf, exitStatus } from '#tsnbd/cli/exit-status.js';
import { LaunchedError } from '#tsnbd/daemon/launch.js';
import { ImageError } from '#tsnbd/image/errors.js';
import { KernelError } from '#tsnbd/kernel/errors.js';
import { ProtocolError } from '#tsnbd/protocol/errors.js';
import { TransportError } from '#tsnbd/transport/errors.js';

describe('the exit status tells what failed', () => {
  test.each([
    [new UsageError('x'), 2],
    [new KernelError('not-root', 'x'), 3],
    [new KernelError('no-module', 'x'), 4],
    [new KernelError('no-device', 'x'), 1],
    [new KernelError('busy', 'x'), 5],
    [new AttachError('busy', 'x'), 5],
    [new ImageError('in-use', 'x'), 5],
    [new ImageError('wrong-format', 'x'), 6],
    [new ImageError('own-device', 'x'), 6],
    [new ImageError('missing', 'x'), 1],
    [new KernelError('refused', 'x'), 6],
    [new ProtocolError('unknown-export', 'x'), 6],
    [new ProtocolError('tls-required', 'x'), 6],
    [new ProtocolError('violation', 'x'), 6],
    [new TransportError('refused', 'x'), 6],
    [new TransportError('time-limit', 'x'), 7],
    [new AttachError('lost', 'x'), 8],
    [new TransportError('unreachable', 'x'), 1],
    [new KernelError('system', 'x'), 1],
    // A process in the background hands over code and message only.
    [new LaunchedError('busy', 'x'), 5],
    [new LaunchedError('constructor', 'x'), 1],
    [new Error('x'), 1],
    [Object.assign(new Error('x'), { code: 'ENOENT' }), 1],
    ['x', 1],
    [undefined, 1],
    [null, 1],
  ])('%o: %i', (error, status) => {
    expect(exitStatus(exitReasonOf(error), 'tsnbd-client')).toBe(status);
  });

  test('called as nbd-client, every failure is 1', () => {
    for (const [reason, { status }] of Object.entries(EXIT_STATUSES)) {
      expect(exitStatus(reason as keyof typeof EXIT_STATUSES, 'nbd-client')).toBe(status === 0 ? 0 : 1);
    }
  });

  test('the statuses are 0 to 8, in their order', () => {
    expect(Object.values(EXIT_STATUSES).map(({ status }) => status)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });
});
