import { describe, expect, test } from 'vitest';
import { allCases, fio, targetCases } from '../../bench/cases.js';
import { parseOptions, UsageError } from '../../bench/options.js';

describe('the list of cases', () => {
  test('has every name once', () => {
    const names = allCases.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });

  test('holds everything against everything, and every case with a target', () => {
    const cross = allCases.filter(
      (one) =>
        one.kind === 'fio' &&
        one.transport !== 'kernel' &&
        one.qcow2 === undefined &&
        [1, 16, 64].includes(one.depth) &&
        one.cache !== 'once' &&
        one.cache !== 'direct' &&
        one.underLimit === undefined,
    );
    // transports, accesses, sizes, depths, connections, warm and cold
    expect(cross).toHaveLength(2 * 4 * 3 * 3 * 2 * 2);
    expect(allCases).toEqual(expect.arrayContaining([...targetCases]));
  });

  test('has a target above nothing for nbdkit and qemu-nbd in every case that has one', () => {
    for (const { name, speed, cpu } of targetCases) {
      const others = name.startsWith('qcow2 ') ? ['qemu-nbd', 'qemu-nbd io_uring'] : ['nbdkit', 'qemu-nbd'];
      expect(Object.keys(speed ?? {}).sort()).toEqual(others);
      for (const target of Object.values({ ...speed, ...cpu })) expect(target).toBeGreaterThan(0);
    }
  });

  test('says by a name what is done', () => {
    expect(fio('tcp randwrite 64k d16 c4 cold')).toEqual({
      kind: 'fio',
      name: 'tcp randwrite 64k d16 c4 cold',
      transport: 'tcp',
      access: 'randwrite',
      blockBytes: 65_536,
      depth: 16,
      connections: 4,
      cache: 'cold',
    });
    expect(fio('unix randread 256k d16 wmem')).toMatchObject({ cache: 'warm', underLimit: true });
    expect(fio('unix read 4k d1')).toMatchObject({ access: 'read', connections: 1, cache: 'warm' });
    expect(() => fio('unix randread 4k 16')).toThrow('not the name of a case');
  });
});

describe('the command line of the bench', () => {
  const parse = (...words: string[]) => {
    const options = parseOptions(words, '/checkout');
    if (typeof options === 'string') throw new Error(options);
    return options;
  };
  const names = (...words: string[]) => parse(...words).cases.map(({ name }) => name);

  test('selects cases by name', () => {
    expect(names('--only', '^tcp randread 4k d1$')).toEqual(['tcp randread 4k d1']);
    expect(names('--only', '^unix nbdcopy', '--only', '^unix randread 4k d1$')).toHaveLength(3);
    expect(() => names('--only', 'no such case')).toThrow(UsageError);
  });

  test('--quick and --targets take the cases with a target, --no-kernel leaves out the kernel’s', () => {
    expect(names('--quick')).toEqual(targetCases.map(({ name }) => name));
    expect(names('--targets')).toEqual(targetCases.map(({ name }) => name));
    expect(names()).toEqual(allCases.map(({ name }) => name));
    expect(names('--no-kernel').filter((name) => name.startsWith('kernel'))).toEqual([]);
  });

  test('--quick alone has a time after which nothing more is begun', () => {
    const { host, settling, boot, devices } = parse('--quick').lateAt;
    expect([host, settling, boot, devices, 90_000]).toEqual(
      [host, settling, boot, devices, 90_000].sort((a, b) => a - b),
    );
    expect(new Set(Object.values(parse('--targets').lateAt))).toEqual(new Set([Number.POSITIVE_INFINITY]));
  });

  test('refuses what it does not know, and numbers that are none', () => {
    for (const words of [['--fast'], ['case'], ['--rounds', '0'], ['--seconds', 'two'], ['--only', '(']])
      expect(() => parse(...words), words.join(' ')).toThrow(UsageError);
  });
});
