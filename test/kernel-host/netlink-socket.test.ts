import { pbkdf2 } from 'node:crypto';
import { readdirSync, readlinkSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { findFamily } from '#tsnbd/kernel/nbd-family.js';
import { CTRL_ATTR_FAMILY_ID, CTRL_CMD_GETFAMILY, GENL_ID_CTRL } from '#tsnbd/kernel/netlink-abi.js';
import { attributeInteger } from '#tsnbd/kernel/netlink-codec.js';
import { describeReply, NetlinkSocket } from '#tsnbd/kernel/netlink-socket.js';

const limitMs = 10_000;
const named = (text: string) => ({
  family: GENL_ID_CTRL,
  command: CTRL_CMD_GETFAMILY,
  version: 2,
  attributes: [{ type: 2, value: { text } }],
});

let socket: NetlinkSocket;
beforeEach(() => {
  socket = new NetlinkSocket();
});
afterEach(() => {
  socket.close();
});

it('finds a family by its name, and says when there is none', async () => {
  expect(await findFamily(socket, 'nlctrl')).toMatchObject({ id: GENL_ID_CTRL });
  expect(await findFamily(socket, 'no such one')).toBe(undefined);
});

it('gives each question its own answer, one behind the other and from a thread', async () => {
  for (let round = 0; round < 20; round += 1) {
    const reply = await socket.ask(named('nlctrl'), limitMs);
    expect(reply).toMatchObject({ errno: 0, text: '' });
    expect(reply.attributes && attributeInteger(reply.attributes, CTRL_ATTR_FAMILY_ID, 2)).toBe(GENL_ID_CTRL);
    expect(await socket.ask(named('nonesuch'), limitMs)).toMatchObject({ errno: 2, attributes: undefined });
  }
  let begun = 0;
  const reply = await socket.askInThread(named('nlctrl'), () => {
    begun += 1;
  });
  expect(begun).toBe(1);
  expect(reply.attributes && attributeInteger(reply.attributes, CTRL_ATTR_FAMILY_ID, 2)).toBe(GENL_ID_CTRL);
  expect(await socket.askInThread(named('nonesuch'))).toMatchObject({ errno: 2 });
});

it('tells why the kernel refuses, in its words where it has some', async () => {
  const long = await socket.ask(named('a name of more than sixteen bytes'), limitMs);
  expect(long.errno).toBeGreaterThan(0);
  expect(long.text).toMatch(/^Attribute failed policy validation$/);
  expect(describeReply(long)).toMatch(/^Attribute failed policy validation: .*\(E[A-Z]+\)$/);
  expect(describeReply({ errno: 16, text: '', attributes: undefined })).toBe('resource busy or locked (EBUSY)');
});

it('does not wait for ever, and does not take the answer that comes late for another', async () => {
  // What keeps the threads busy by which Node writes does to us what a held lock of netlink does.
  const busy = Array.from({ length: 8 }, () => promisify(pbkdf2)('', '', 200_000, 64, 'sha512'));
  await expect(socket.ask(named('nlctrl'), 5)).rejects.toMatchObject({
    code: 'time-limit',
    message: 'the kernel did not answer by netlink in 0.005 s: another program waits in it',
  });
  await Promise.all(busy);
  expect(await socket.ask(named('nonesuch'), limitMs)).toMatchObject({ errno: 2, attributes: undefined });
});

it('leaves no descriptor behind', async () => {
  const sockets = () =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
      } catch {
        return false;
      }
    }).length;
  const before = sockets();
  const other = new NetlinkSocket();
  expect(sockets()).toBe(before + 1);
  await other.askInThread(named('nlctrl'));
  other.close();
  expect(sockets()).toBe(before);
});
