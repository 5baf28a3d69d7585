import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { assertQuietKernel, type Background, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, listensOn, startServer, tsnbd } from './programs.js';
import { attachHere, dropClients, expectLocked, hears, PSS_KIB_MAX } from './supervised.js';

// What becomes of devices whose server goes away: by netlink, for only nbd_genl_reconfigure (nbd_reconnect_socket) puts another
// socket in the place of one that is dead; by ioctl nbd_start_device_ioctl ends the device with its last one. All of them wait at the same time: each has a server's outage of its own
// or shares one, and what is seen meanwhile is looked at in the end.

const OUTAGE_SECONDS = 20;
/** Longer than the kernel waits for a request that has no limit, until it reports it: 30 s. */
const STOP_SECONDS = 60;
/** A pause is the outage and this at most. */
const EXTRA_SECONDS = 8;
const PORT = 4010;

let folder = '';

/** Serves an image of `folder`, over TCP. */
const serve = (image: string, port = PORT) =>
  startServer(`nbdkit -f -i 127.0.0.1 -p ${port} file ${folder}/${image}`, listensOn(port));

/** Files are written and made durable one after the other until `stop`; each line of `written` has a time in seconds. */
const WRITER = `
  cd $1
  for n in $(seq 100000); do
    head -c 100000 /dev/urandom >$n && sync $n && sha256sum $n >>$2/sums || exit 1
    cut -d ' ' -f 1 /proc/uptime >>$2/written
    test -e $2/stop && exit 0
  done`;

/** What fio writes to a file, and reads again all the while, tells where and when it was written. */
const verifier = (mnt: string, seconds: number) =>
  background(
    `exec fio --name=verify --filename=${mnt}/verified --direct=1 --rw=randrw --bsrange=4k-64k --iodepth=4 --rate_iops=30 --ioengine=libaio --verify=crc32c --verify_backlog=32 --time_based --runtime=${seconds} --size=8M --output-format=terse`,
  );

interface Writer {
  readonly client: Background;
  readonly program: Background;
  readonly notes: string;
  readonly mnt: string;
}

async function startWriter(device: string, client: Background): Promise<Writer> {
  const [notes, mnt] = [await memoryDir('notes'), await memoryDir('mnt')];
  await ok(`mkfs.ext4 -q /dev/${device} && mount /dev/${device} ${mnt}`);
  await ok(`printf '%s' "$(cat <<'END'\n${WRITER}\nEND\n)" >${notes}/writer`);
  const program = await background(`exec sh ${notes}/writer ${mnt} ${notes}`);
  await until(`test -s ${notes}/written`);
  return { client, program, notes, mnt };
}

const DONE = { status: 0, stderr: '' };

/** The writer's end; every file is what was written, on the server too; and the longest pause, in seconds. */
async function finish({ program, notes, mnt }: Writer, device: string, fio?: Background): Promise<number> {
  const before = await ok(`wc -l <${notes}/written`);
  await until(`test $(wc -l <${notes}/written) -gt ${before}`);
  await ok(`touch ${notes}/stop`);
  for (const each of [program, fio]) expect((await each?.result) ?? DONE).toMatchObject(DONE);
  await ok(`umount ${mnt} && echo 3 >/proc/sys/vm/drop_caches && mount /dev/${device} ${mnt}`);
  await ok(`cd ${mnt} && sha256sum --quiet -c ${notes}/sums && cd / && umount ${mnt}`);
  const times = (await ok(`cat ${notes}/written`)).split('\n').map(Number);
  return Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? time)));
}

/** A server whose process of the device's connection does not read for as long as another is stopped, but answers others. */
async function startSlow() {
  const generic = `[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\nport = ${PORT + 2}\n`;
  const config = `${generic}[disk]\nexportname = ${folder}/slow\n`;
  await ok(`cd ${folder} && printf '%s' '${config}' >conf && nbd-server -C ${folder}/conf -p ${folder}/pid`);
  await until(listensOn(PORT + 2));
  const client = await attachHere(`127.0.0.1 ${PORT + 2} /dev/nbd2 -N disk`);
  const process = await ok(`pgrep -P $(cat ${folder}/pid)`);
  await ok(`kill -s STOP ${process}`);
  return { client, process, first: await background(fill('1')) };
}

/** More than the sockets hold, in the end. */
const fill = (letter: string) =>
  `tr '\\0' ${letter} </dev/zero | dd of=/dev/nbd2 bs=32M count=1 iflag=fullblock oflag=direct`;

/** What was written last is what there is. */
async function expectInOrder({ client, process, first }: Awaited<ReturnType<typeof startSlow>>): Promise<void> {
  await ok(`kill -s CONT ${process}`);
  expect((await first.result).status).toBe(0);
  await ok(fill('2'));
  await ok('sleep 1');
  expect(await ok(`head -c 32M ${folder}/slow | tr -d 2 | wc -c`)).toBe('0');
  expect(client.output().stderr).not.toMatch(/lost/);
}

const uptime = async () => Number(await ok("cut -d ' ' -f 1 /proc/uptime"));

beforeAll(async () => {
  folder = await memoryDir('reconnect');
  await ok(`cd ${folder} && truncate -s 64M killed stopped slow away0 away1 two && truncate -s 32M smaller`);
});

afterAll(async () => {
  await dropClients();
  for (let device = 0; device < 8; device += 1) await expectNothingLeft(`nbd${device}`);
  await assertQuietKernel();
});

/** At 10.99.N.2, behind a network of its own, which can be cut where the server sits: the namespace awayN. */
async function serveAway(n: number): Promise<Background> {
  await ok(`modprobe veth; /bin/ip netns add away${n} && /bin/ip link add near${n} type veth peer name far netns away${n}
    /bin/ip addr add 10.99.${n}.1/24 dev near${n} && /bin/ip link set near${n} up
    /bin/ip -n away${n} addr add 10.99.${n}.2/24 dev far && /bin/ip -n away${n} link set far up`);
  return startServer(
    `/bin/ip netns exec away${n} nbdkit -f -i 10.99.${n}.2 -p ${PORT} file ${folder}/away${n}`,
    `/bin/ip netns exec away${n} sh -c "${listensOn(PORT)}"`,
  );
}

describe.concurrent('a device in use', () => {
  test('outlives a server that is killed, and another export in its place; and one that is stopped for a minute', async () => {
    const killed = await serve('killed');
    const stopped = await serve('stopped', PORT + 1);
    const writer0 = await startWriter('nbd0', await attachHere(`127.0.0.1 ${PORT} /dev/nbd0`));
    const writer1 = await startWriter('nbd1', await attachHere(`127.0.0.1 ${PORT + 1} /dev/nbd1`));
    const fio0 = await verifier(writer0.mnt, OUTAGE_SECONDS + 8);
    const fio1 = await verifier(writer1.mnt, STOP_SECONDS + 8);
    expect(await ok('cat /sys/block/nbd[01]/queue/io_timeout')).toBe('2000\n2000');
    expect(await expectLocked(writer0.client)).toBeLessThan(PSS_KIB_MAX);
    expect(await ok(`cat /proc/${writer0.client.pid}/oom_score_adj`)).toBe('-1000');

    const slow = await startSlow();
    // A limit is no less than what was asked for, and by ioctl there is as little of one.
    const others = [
      await attachHere(`127.0.0.1 ${PORT + 1} /dev/nbd6 -timeout 600`),
      await attachHere(`127.0.0.1 ${PORT + 1} /dev/nbd7 -L`),
    ];
    await ok(`kill -s STOP ${stopped.pid}`);
    const reads = await Promise.all(
      ['nbd6', 'nbd7'].map((device) =>
        background(`exec dd if=/dev/${device} of=/dev/null bs=4k count=1 iflag=direct status=none`),
      ),
    );
    const stoppedAt = await uptime();
    await killed.stop('KILL');
    const killedAt = await uptime();
    await hears(writer0.client, /the connection to 127.0.0.1 port 4010 is lost; connecting again/);
    const other = await serve('smaller');
    await hears(
      writer0.client,
      /the export has changed, so it is not attached: it has 33554432 bytes, the device 67108864/,
    );
    await other.stop('KILL');
    await ok(`sleep ${Math.max(0, OUTAGE_SECONDS - ((await uptime()) - killedAt))}`);
    const back = await serve('killed');
    const outage0 = (await uptime()) - killedAt;
    await hears(writer0.client, /connected to 127.0.0.1 port 4010 again after/);
    const pssKiB = await expectLocked(writer0.client);
    console.log(`supervisor: ${pssKiB} KiB PSS`);
    expect(pssKiB).toBeLessThan(PSS_KIB_MAX);
    expect(await finish(writer0, 'nbd0', fio0)).toBeLessThan(outage0 + EXTRA_SECONDS);

    // Nobody answers for 5 s, and then for 10 s on a second connection.
    await hears(writer1.client, /127.0.0.1 port 4011 does not answer; requests wait/);
    expect(await ok(`${tsnbd} ls --json`)).toMatch(
      /"device":\s*"\/dev\/nbd1",\s*"sizeBytes":\s*67108864,\s*"state":\s*"dead"/,
    );
    expect(await ok(`${tsnbd} status nbd1`)).toMatch(/^state: dead$/m);
    expect(await run(`${tsnbd} resize nbd1`)).toMatchObject({
      status: 8,
      stderr: expect.stringMatching(/^tsnbd: \/dev\/nbd1 has no connection to its server; try again/),
    });
    await ok(`sleep ${Math.max(0, STOP_SECONDS - ((await uptime()) - stoppedAt))}; kill -s CONT ${stopped.pid}`);
    const outage1 = (await uptime()) - stoppedAt;
    expect(await finish(writer1, 'nbd1', fio1)).toBeLessThan(outage1 + EXTRA_SECONDS);
    await hears(writer1.client, /answers again|connected to 127.0.0.1 port 4011 again/);
    for (const each of reads) expect(await each.result).toMatchObject(DONE);

    await expectInOrder(slow);
    for (const client of [writer0.client, writer1.client, slow.client, ...others]) {
      expect(await client.stop()).toMatchObject({ status: 0 });
    }
    await ok(`kill $(cat ${folder}/pid)`);
    await back.stop('KILL');
    await stopped.stop('KILL');
  });

  test('outlives a network that is cut and comes back, and the loss of two connections', async () => {
    const away = await serveAway(0);
    const writer = await startWriter('nbd3', await attachHere(`10.99.0.2 ${PORT} /dev/nbd3`));
    const fio = await verifier(writer.mnt, OUTAGE_SECONDS + 5);
    const server = await serve('two', PORT + 3);
    const two = await attachHere(`127.0.0.1 ${PORT + 3} /dev/nbd4 -C 2`);
    expect(two.output().stderr).not.toContain('2 connections:');
    expect(await ok(`${tsnbd} status nbd4`)).toMatch(/^connections: 2$/m);
    expect(await ok('cat /sys/block/nbd4/queue/io_timeout')).toBe('30000');

    await ok('/bin/ip -n away0 link set far down');
    const cutAt = await uptime();
    await server.stop('KILL');
    await ok(`sleep ${OUTAGE_SECONDS} && /bin/ip -n away0 link set far up`);
    const outage = (await uptime()) - cutAt;
    const back = await serve('two', PORT + 3);
    expect(await finish(writer, 'nbd3', fio)).toBeLessThan(outage + EXTRA_SECONDS);

    await hears(two, /connected to 127.0.0.1 port 4013 again after/);
    expect(await ok(`${tsnbd} status nbd4`)).toMatch(/^reconnects: 2$/m);
    await ok('dd if=/dev/urandom of=/dev/nbd4 bs=1M count=8 oflag=direct status=none');
    await ok(`cmp -n 8388608 /dev/nbd4 ${folder}/two`);
    for (const client of [writer.client, two]) expect(await client.stop()).toMatchObject({ status: 0 });
    for (const each of [away, back]) await each.stop('KILL');
    await ok('/bin/ip netns del away0');
  });

  test('gives up a connection that something on the way has forgotten, although others reach the server', async () => {
    const away = await serveAway(1);
    const client = await attachHere(`10.99.1.2 ${PORT} /dev/nbd5 -dead-timeout 6`);
    const port = await ok("/bin/ip netns exec away1 ss -Htn state established | sed -E 's/.*:([0-9]+) *$/\\1/'");
    // An idle device's connection is one that the kernel asks about by itself.
    await until(`ss -Htno state established dst 10.99.1.2 dport = :${PORT} | grep 'timer:(keepalive,'`);
    // All that the server sends on it gets lost, its acknowledgements too.
    await ok(`/bin/ip -n away1 rule add ipproto tcp dport ${port} blackhole`);
    await ok('timeout 60 dd if=/dev/nbd5 of=/dev/null bs=4k count=1 iflag=direct status=none');
    await hears(
      client,
      /acknowledged nothing on a connection for 6 s\n.*is lost; connecting again\n.*connected to .* again/,
    );
    expect(await client.stop()).toMatchObject({ status: 0 });
    await away.stop('KILL');
    await ok('/bin/ip netns del away1');
  });
});
