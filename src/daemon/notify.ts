import { sendDatagram } from '../kernel/socket-calls.js';

/** Tells the service manager that started this process, if one did and wants to know, how it goes (sd_notify(3)). */
export function notifyServiceManager(state: 'READY=1' | 'STOPPING=1'): void {
  const path = process.env.NOTIFY_SOCKET;
  if (path !== undefined && path !== '') sendDatagram(path.replace(/^@/, '\0'), Buffer.from(state));
}
