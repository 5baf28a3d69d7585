// A launched process for launch.test.ts; its task says how it behaves.
import { writeFileSync } from 'node:fs';
import { openReadyChannel } from '#tsnbd/daemon/ready.js';

const channel = openReadyChannel();
const task = /** @type {{ behave: string, note?: string }} */ (await channel.task);
channel.event({ cwd: process.cwd(), pid: process.pid });
if (task.behave === 'ready') await channel.ready();
if (task.behave === 'fail') await channel.failed({ code: 'busy', message: 'the device is busy' });
if (task.behave === 'die') process.kill(process.pid, 'SIGKILL');
if (task.behave === 'leave') process.exit(0);
if (task.behave === 'wait') {
  channel.abandoned.addEventListener('abort', () => {
    writeFileSync(task.note ?? '/dev/null', 'abandoned');
    process.exit(0);
  });
  setTimeout(() => process.exit(1), 20_000);
}
