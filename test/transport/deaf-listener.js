// A thread that listens, tells its port, and sleeps for ever once it has said so: nobody who connects gets an answer when its
// backlog is full.
import { createServer } from 'node:net';
import { parentPort } from 'node:worker_threads';

const server = createServer();
server.listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => {
  const address = server.address();
  parentPort?.postMessage(typeof address === 'object' ? address?.port : undefined);
  setTimeout(() => {
    parentPort?.postMessage('deaf');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }, 20);
});
