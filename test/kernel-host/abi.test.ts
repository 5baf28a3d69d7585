import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import * as libcAbi from '#tsnbd/kernel/libc-abi.js';
import * as nbdAbi from '#tsnbd/kernel/nbd-abi.js';
import * as netlinkAbi from '#tsnbd/kernel/netlink-abi.js';

/** What stands in our tables and is no macro of a header: how C says it. */
const expressions: Readonly<Record<string, string>> = {
  SECTOR_BYTES: '512', // <linux/blk_types.h> has SECTOR_SIZE, for the kernel alone
  NR_IO_URING_SETUP: '__NR_io_uring_setup',
  NR_IO_URING_ENTER: '__NR_io_uring_enter',
  NR_PIDFD_OPEN: '__NR_pidfd_open',
  NR_PIDFD_GETFD: '__NR_pidfd_getfd',
  BPF_LD_W_ABS: 'BPF_LD | BPF_W | BPF_ABS',
  BPF_JMP_JEQ_K: 'BPF_JMP | BPF_JEQ | BPF_K',
  BPF_RET_K: 'BPF_RET | BPF_K',
  NLA_TYPE_MASK: '(unsigned short)NLA_TYPE_MASK', // without the two flags above it
  PAGE_BYTES: '4096', // the smallest page size of Linux; this machine's may be larger
};

/** Types that C names without `struct`. */
const typedefs: Readonly<Record<string, string>> = { STRUCT_SIGSET_T: 'sigset_t' };

const table: Readonly<Record<string, unknown>> = { ...libcAbi, ...nbdAbi, ...netlinkAbi };

/** One number of ours: where it stands, and the C expression that must have the same value. */
function entries(): readonly (readonly [string, number, string])[] {
  return Object.entries(table).flatMap(([name, value]) => {
    if (typeof value === 'number') return [[name, value, expressions[name] ?? name] as const];
    if (!name.startsWith('STRUCT_') || typeof value !== 'object' || value === null) {
      throw new Error(`${name} is neither a number nor the layout of a struct`);
    }
    const type = typedefs[name] ?? `struct ${name.slice('STRUCT_'.length).toLowerCase()}`;
    return Object.entries(value as Record<string, number>).map(
      ([field, offset]) =>
        [`${name}.${field}`, offset, field === 'sizeof' ? `sizeof(${type})` : `offsetof(${type}, ${field})`] as const,
    );
  });
}

function compile(source: string, folder: string): string {
  const program = join(folder, 'abi');
  execFileSync('gcc', ['-x', 'c', '-Wall', '-Werror', '-o', program, '-'], { input: source });
  return execFileSync(program, { encoding: 'utf8' });
}

it("every number that goes to the kernel is the C headers' own", () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-abi-'));
  try {
    const ours = entries();
    const source = `#define _GNU_SOURCE
      #include <fcntl.h>
      #include <linux/capability.h>
      #include <linux/falloc.h>
      #include <linux/filter.h>
      #include <linux/fs.h>
      #include <linux/genetlink.h>
      #include <linux/io_uring.h>
      #include <linux/nbd-netlink.h>
      #include <linux/nbd.h>
      #include <linux/netlink.h>
      #include <linux/prctl.h>
      #include <linux/seccomp.h>
      #include <linux/sock_diag.h>
      #include <netinet/in.h>
      #include <netinet/tcp.h>
      #include <poll.h>
      #include <sched.h>
      #include <signal.h>
      #include <stddef.h>
      #include <stdio.h>
      #include <sys/mman.h>
      #include <sys/resource.h>
      #include <sys/socket.h>
      #include <sys/syscall.h>
      #include <sys/stat.h>
      #include <sys/time.h>
      int main(void) {
        ${ours.map(([name, , expression]) => `printf("${name} %lld\\n", (long long)(${expression}));`).join('\n')}
        return 0;
      }`;
    expect(ours.length).toBeGreaterThan(35);
    expect(ours.map(([name, value]) => `${name} ${value}`)).toEqual(compile(source, folder).trimEnd().split('\n'));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it("the fields of a struct flock have the C header's sizes", () => {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbd-abi-'));
  const fields = ['l_type', 'l_whence', 'l_start', 'l_len', 'l_pid'];
  const sizes = fields.map((field) => `printf("%zu ", sizeof(((struct flock *)0)->${field}));`);
  try {
    const source = `#include <fcntl.h>\n#include <stdio.h>\nint main(void) { ${sizes.join(' ')} return 0; }`;
    expect(compile(source, folder)).toBe('2 2 8 8 4 ');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
