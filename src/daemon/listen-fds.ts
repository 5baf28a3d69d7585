/** The first file descriptor that a service manager passes (sd_listen_fds(3): SD_LISTEN_FDS_START). */
export const FIRST_PASSED_FD = 3;

const VARIABLES = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'] as const;

/**
 * How many sockets a service manager has passed to this process, from FIRST_PASSED_FD on; 0 where none did, or where they
 * were meant for another process (sd_listen_fds(3)). The variables that say so are taken out of `environment`, so that no
 * process started from here believes that they are for it.
 */
export function takePassedFds(environment: NodeJS.ProcessEnv, pid: number): number {
  const { LISTEN_PID, LISTEN_FDS } = environment;
  for (const name of VARIABLES) delete environment[name];
  if (LISTEN_PID !== String(pid) || LISTEN_FDS === undefined) return 0;
  return /^[0-9]+$/.test(LISTEN_FDS) ? Number(LISTEN_FDS) : 0;
}
