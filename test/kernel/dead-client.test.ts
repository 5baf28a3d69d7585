import { afterEach, expect, test } from 'vitest';
import { assertQuietKernel, type Background, background, ok, run, until } from './guest.js';
import { expectNothingLeft, listensOn, newImage, startServer, tsnbd } from './programs.js';

const PORT = 4_021;
const started: Background[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.stop('KILL');
  await ok('/bin/ip netns del gone');
  await expectNothingLeft();
  await assertQuietKernel();
});

test('a client whose network is gone holds its place at a server no longer than keepalive takes to see that', async () => {
  const image = await newImage('1M');
  await ok(`modprobe veth; /bin/ip netns add gone && /bin/ip link add near type veth peer name far netns gone
/bin/ip addr add 10.98.0.1/24 dev near && /bin/ip link set near up
/bin/ip -n gone addr add 10.98.0.2/24 dev far && /bin/ip -n gone link set far up`);
  started.push(await startServer(`${tsnbd} -t -e 1 -f raw --bind=0.0.0.0 --port=${PORT} ${image}`, listensOn(PORT)));
  const reading = `stdbuf -oL qemu-io -f raw nbd://10.98.0.1:${PORT} -r -c 'read 0 512' -c 'sleep 300000'`;
  const client = await background(`exec /bin/ip netns exec gone ${reading}`);
  started.push(client);
  await expect.poll(() => client.output().stdout, { timeout: 20_000 }).toContain('read 512/512');
  // Keepalive has nothing to say of what is not acknowledged yet: that is sent again for as long as TCP's own limit.
  await until(`ss -Htn sport = :${PORT} | awk '{ waiting += $3 } END { exit waiting > 0 || NR != 1 }'`);
  await ok('/bin/ip -n gone link set far down');
  const another = `nbdinfo --size nbd://127.0.0.1:${PORT}`;
  expect((await run(another)).status).not.toBe(0);
  await until(another, 90_000);
});
