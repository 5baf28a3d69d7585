import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readlinkSync, rmSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { isOfDeadProcess, isUnattended, newIdentifier } from '#tsnbd/kernel/device-owner.js';
import { processStartTime } from '#tsnbd/kernel/proc.js';
import { makeTree } from './tree.js';

let root = '';
afterEach(() => {
  if (root !== '') rmSync(root, { recursive: true });
  root = '';
});

/** Our text, with some of its words replaced. */
function identifier(words: Readonly<Record<number, string | number>> = {}): string {
  return newIdentifier(false)
    .split(':')
    .map((word, index) => words[index] ?? word)
    .join(':');
}

describe('the mark of a device', () => {
  it('says boot, namespaces, process and start time, and is new for each device', () => {
    const [mark, bootId, pidSpace, timeSpace, pid, startTime, serial] = newIdentifier(false).split(':');
    expect(mark).toBe('tsnbd');
    expect(bootId).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
    expect(`pid:[${pidSpace}]`).toBe(readlinkSync('/proc/self/ns/pid'));
    expect(`time:[${timeSpace}]`).toBe(readlinkSync('/proc/self/ns/time'));
    expect([Number(pid), Number(startTime)]).toEqual([process.pid, processStartTime(process.pid)]);
    expect(Number(newIdentifier(false).split(':')[6])).toBe(Number(serial) + 1);
  });

  it('of a living process is not a dead one’s', () => {
    expect(isOfDeadProcess(newIdentifier(false))).toBe(false);
    expect(isOfDeadProcess(identifier({ 4: 1, 5: processStartTime(1) ?? '' }))).toBe(false);
  });

  it('can say that no process answers for the device; then none that is dead does', () => {
    expect(isUnattended(newIdentifier(true))).toBe(true);
    expect(isOfDeadProcess(`${identifier({ 5: 1 })}:alone`)).toBe(false);
    for (const other of [newIdentifier(false), undefined, '', 'rbd:alone', 'alone'])
      expect(isUnattended(other)).toBe(false);
  });

  it('of a process that has ended is a dead one’s', async () => {
    const child = spawn('sleep', ['100'], { stdio: 'ignore' });
    await once(child, 'spawn');
    const its = identifier({ 4: child.pid ?? '', 5: processStartTime(child.pid ?? 0) ?? '' });
    expect(isOfDeadProcess(its)).toBe(false);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(isOfDeadProcess(its)).toBe(true);
    // Its number, given to another process.
    expect(isOfDeadProcess(identifier({ 5: 1 }))).toBe(true);
  });

  it('of a process that has ended is a dead one’s, though its parent does not wait for it', async () => {
    const parent = spawn('sh', ['-c', 'sleep 100 & echo $!; exec sleep 100'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      const [line] = (await once(parent.stdout, 'data')) as [Buffer];
      const pid = Number(line.toString());
      const its = identifier({ 4: pid, 5: processStartTime(pid) ?? '' });
      expect(isOfDeadProcess(its)).toBe(false);
      // The shell must have become another program: it would wait for its child.
      await vi.waitFor(() => expect(readFileSync(`/proc/${parent.pid}/comm`, 'utf8')).toBe('sleep\n'));
      process.kill(pid, 'SIGKILL');
      await vi.waitFor(() => expect(isOfDeadProcess(its)).toBe(true));
      expect(processStartTime(pid)).toBe(undefined);
      expect(readFileSync(`/proc/${pid}/stat`, 'utf8')).toContain(' Z ');
    } finally {
      parent.kill('SIGKILL');
    }
  });

  it.each([
    ['nobody', undefined],
    ['a program that leaves none', ''],
    ['another program', 'rbd-image-7'],
    ['another program that begins like ours', 'tsnbd'],
    ['another version of ours', identifier({ 6: '1:and more' })],
    ['a process with an odd number', identifier({ 4: '0x10' })],
    ['process 0', identifier({ 4: 0 })],
    ['a start time that is none', identifier({ 5: '' })],
    ['another boot', identifier({ 1: '6a3b5c1e-0000-4000-8000-000000000000', 5: 1 })],
    ['another namespace of processes', identifier({ 2: 4026531000, 5: 1 })],
    ['another namespace of clocks', identifier({ 3: 4026531000, 5: 1 })],
  ])('of %s is not touched', (_, backend) => {
    expect(isOfDeadProcess(backend)).toBe(false);
  });

  it('of a process that cannot be looked at is not touched', () => {
    const [, bootId = '', pidSpace, timeSpace] = newIdentifier(false).split(':');
    root = makeTree({
      'proc/sys/kernel/random/boot_id': `${bootId}\n`,
      'proc/self/ns/pid': `-> pid:[${pidSpace}]`,
      'proc/self/ns/time': `-> time:[${timeSpace}]`,
      'proc/77/stat': undefined, // a folder: EISDIR
      'proc/78/stat': 'nonsense\n',
    });
    expect(isOfDeadProcess(identifier({ 4: 76 }), root)).toBe(true);
    expect(isOfDeadProcess(identifier({ 4: 77 }), root)).toBe(false);
    expect(isOfDeadProcess(identifier({ 4: 78 }), root)).toBe(false);
  });

  it('is not believed where the boot cannot be told', () => {
    root = makeTree({ 'proc/self/ns/pid': '-> pid:[1]' });
    expect(isOfDeadProcess('tsnbd::1:none:76:1:1', root)).toBe(false);
  });
});
