import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { assertQuietKernel, type Background, background, memoryDir, ok, run, until } from './guest.js';
import { expectNothingLeft, isSocket, startServer, testProgram, tsnbdClientHere } from './programs.js';

const LOST = /: the connection was lost before the device was usable$/m;

type Case = readonly [behaviour: string, status: number, message: RegExp];
const CASES: readonly Case[] = [
  ['closes early', 6, /closed/],
  ['sends garbage', 6, /not.* NBD|NBD server/],
  ['is of the old style', 6, /old/],
  ['has a wrong magic', 6, /./],
  ['says nothing at all', 7, /time limit/],
  ['closes after an option', 6, /closed/],
  ['sends a huge length', 6, /4294967295|limit|too/],
  ['answers another option', 6, /option/],
  ['sends an unknown reply', 6, /77|unknown/],
  ['has an export of 0 bytes', 6, /0 bytes/],
  ['has an export of 2^63 bytes', 6, /9223372036854775808/],
  ['has blocks of 3 bytes', 6, /3/],
  ['has blocks of 64 KiB', 6, /65536/],
  ['wants TLS', 6, /TLS.*TLS, please|TLS, please.*TLS/],
  ['refuses by policy', 6, /not on a Sunday/],
  ['does not know the export', 6, /export/],
  ['is shutting down', 6, /shut/],
  ['goes on after its last reply', 6, /./],
  ['sends a wrong cookie', 8, LOST],
  ['sends half of what was read', 8, LOST],
  ['answers a read twice', 8, LOST],
  ['sends garbage for a reply', 8, LOST],
  ['never answers a read', 7, /partition table/],
];
/** They are waited for, some until a time limit: at the same time, each with a device of its own. */
const SLOW: Readonly<Record<string, string>> = {
  'says nothing at all': 'nbd1',
  'never answers a read': 'nbd2',
  'sends a wrong cookie': 'nbd3',
  'sends half of what was read': 'nbd4',
  'answers a read twice': 'nbd5',
  'sends garbage for a reply': 'nbd6',
};
const UNREADABLE = 'reads with an error that NBD does not know';

const socketOf = (behaviour: string) => behaviour.replaceAll(' ', '-');

let folder = '';
let server: Background | undefined;

beforeAll(async () => {
  folder = await memoryDir('hostile');
  const last = isSocket(`${folder}/${socketOf(UNREADABLE)}`);
  server = await startServer(`node ${testProgram('hostile-server')} ${folder}`, last);
});
afterAll(async () => {
  await server?.stop('KILL');
});

describe.each(['netlink', 'ioctl'])('by %s', (api) => {
  const client = `${tsnbdClientHere} --kernel-api=${api}`;

  /** Attaches each, in one shell: FOLDER/SOCKET.status has the exit status, and so on. */
  beforeAll(async () => {
    const attempt = `attempt() { ${client} -unix $1 /dev/$2 >$1.stdout 2>$1.stderr; echo $? >$1.status; }`;
    const slow = CASES.filter(([each]) => each in SLOW).map(([each]) => `attempt ${socketOf(each)} ${SLOW[each]} &`);
    const quick = CASES.filter(([each]) => !(each in SLOW)).map(([each]) => `attempt '${socketOf(each)}' nbd0`);
    await ok([attempt, ...slow, ...quick, 'wait'].join('\n'), { cwd: folder, limitMs: 600_000 });
  }, 700_000);
  afterAll(async () => {
    for (const device of ['nbd0', ...Object.values(SLOW)]) await expectNothingLeft(device);
    await assertQuietKernel();
  });

  test('a disk of which nothing can be read is one of input/output errors, and detached as any other', async () => {
    const attached = await background(`exec ${client} -unix ${socketOf(UNREADABLE)} /dev/nbd0`, { cwd: folder });
    await until('test -e /run/tsnbd/nbd0.json && test -s /sys/block/nbd0/pid');
    const read = await run('dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct');
    expect(read).toMatchObject({ status: 1, stderr: expect.stringMatching(/Input\/output error/) });
    expect(await attached.stop()).toMatchObject({ status: 0 });
  });

  describe('a server is refused that', () => {
    test.each(CASES)('%s', async (behaviour, status, message) => {
      const read = async (what: string) => (await run(`cat '${socketOf(behaviour)}.${what}'`, { cwd: folder })).stdout;
      const stderr = await read('stderr');
      expect(stderr).toMatch(message);
      expect(stderr).toMatch(/^(bs=.*\n)?tsnbd-client: [^\n]+\n$/);
      expect(await read('status')).toBe(`${status}\n`);
    });
  });
});
