import { describe, expect, test } from 'vitest';
import { takePassedFds } from '#tsnbd/daemon/listen-fds.js';

describe('sockets that a service manager passed', () => {
  test.each([
    [{ LISTEN_PID: '7', LISTEN_FDS: '1' }, 1],
    [{ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' }, 2],
    [{ LISTEN_PID: '7', LISTEN_FDS: '0' }, 0],
    [{ LISTEN_PID: '8', LISTEN_FDS: '1' }, 0],
    [{ LISTEN_FDS: '1' }, 0],
    [{ LISTEN_PID: '7' }, 0],
    [{ LISTEN_PID: '7', LISTEN_FDS: '' }, 0],
    [{ LISTEN_PID: '7', LISTEN_FDS: '-1' }, 0],
    [{ LISTEN_PID: '7', LISTEN_FDS: '1x' }, 0],
    [{ LISTEN_PID: '07', LISTEN_FDS: '1' }, 0],
    [{}, 0],
  ])('%j, process 7: %i', (variables, count) => {
    const environment: NodeJS.ProcessEnv = { ...variables, HOME: '/' };
    expect(takePassedFds(environment, 7)).toBe(count);
    expect(environment).toEqual({ HOME: '/' });
    expect(takePassedFds(environment, 7)).toBe(0);
  });
});
