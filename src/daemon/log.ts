import { sendDatagram } from '../kernel/socket-calls.js';

const SYSLOG_SOCKET = '/dev/log';
/** syslog(3): LOG_DAEMON, and the priorities below it. */
const DAEMON = 3 << 3;
const PRIORITIES = { err: 3, warning: 4, info: 6 } as const;

/**
 * Writes a line to syslog, or the journal, as a process without a terminal should. It waits for nobody and starts no
 * program: a device that waits for this process may hold the programs. A machine without syslog loses the line.
 */
export function log(priority: keyof typeof PRIORITIES, message: string, socketPath = SYSLOG_SOCKET): void {
  const [, month, day, , time] = new Date().toString().split(' ');
  const when = `${month} ${day?.replace(/^0/, ' ')} ${time}`;
  sendDatagram(socketPath, Buffer.from(`<${DAEMON | PRIORITIES[priority]}>${when} tsnbd[${process.pid}]: ${message}`));
}
