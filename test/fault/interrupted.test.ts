import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { assertQuietKernel, type Background, memoryDir, ok } from '../kernel/guest.js';
import { expectNothingLeft, isSocket, newImage, startServer, tsnbd, tsnbdClient } from '../kernel/programs.js';
import { long } from '../long.js';

const TIMES = long ? 60 : 6;
/** The whole of an attach. */
const MOMENT_MS_MAX = 900;

let image = '';
let socket = '';
let server: Background | undefined;
beforeAll(async () => {
  image = await newImage('16M');
  socket = `${await memoryDir('server')}/sock`;
  server = await startServer(`nbdkit -f -U ${socket} memory 16M`, isSocket(socket), { limitMs: 7_200_000 });
});
afterAll(() => server?.stop('KILL'));

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

/** Like a terminal's, the ^C reaches the command and all that it has started. */
const LOOP = `
  for n in $(seq $1); do
    moment=$(shuf -n 1 -i 1-$2)
    timeout --preserve-status -s INT $(printf 0.%03d $moment) sh -c "$3" >/tmp/interrupted 2>&1
    status=$?
    if test $status = 0; then $4 -d nbd0 >/dev/null || exit 1; fi
    for try in $(seq 100); do
      left="$(ls -A /run/tsnbd 2>/dev/null) $(cat /sys/block/nbd0/pid 2>/dev/null) $(pgrep -x node)"
      test "$left" = '  ' && break
      sleep 0.1
    done
    echo "$moment $status$left: $(cat /tmp/interrupted)"
  done`;

test.each([
  ['an image by netlink', () => `${tsnbd} --kernel-api=netlink -c nbd0 -f raw ${image}`],
  ['an image by ioctl', () => `${tsnbd} --kernel-api=ioctl -c nbd0 -f raw ${image}`],
  ['a remote export by netlink', () => `${tsnbdClient} --kernel-api=netlink -unix ${socket} nbd0`],
  ['a remote export by ioctl', () => `${tsnbdClient} --kernel-api=ioctl -unix ${socket} nbd0`],
])('an attach of %s that ^C ends at any moment leaves nothing behind', async (_, attach) => {
  const told = await ok(`set -- ${TIMES} ${MOMENT_MS_MAX} 'exec ${attach()}' ${tsnbd}${LOOP}`, { limitMs: 600_000 });
  const ends = told.split(/^(?=\d+ \d+)/m);
  expect(ends).toHaveLength(TIMES);
  // 130: before a line of ours runs; 0: it was attached before, and has been detached.
  for (const end of ends)
    expect(end).toMatch(/^\d+ (130 {2}: |1 {2}: [\s\S]*interrupted; nothing stays attached|0 {2}: )/);
});
