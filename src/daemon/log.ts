import { spawnSync } from 'node:child_process';

const LOG_LIMIT_MS = 5_000;

/**
 * Writes a line to syslog as a process without a terminal should; logger(1) is on every Debian, and finds the journal
 * as well as a syslogd. A machine without either loses the line: there is nowhere else to say it.
 */
export function log(priority: 'info' | 'warning' | 'err', message: string): void {
  spawnSync('logger', ['-t', `tsnbd[${process.pid}]`, '-p', `daemon.${priority}`, '--', message], {
    stdio: 'ignore',
    timeout: LOG_LIMIT_MS,
  });
}
