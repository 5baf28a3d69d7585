import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from './errors.js';
import { libc } from './libc.js';
import {
  BPF_JMP_JEQ_K,
  BPF_LD_W_ABS,
  BPF_RET_K,
  MADV_DONTNEED,
  MADV_FREE,
  MCL_CURRENT,
  MCL_FUTURE,
  MCL_ONFAULT,
  MLOCK_ONFAULT,
  PR_GET_IO_FLUSHER,
  PR_SET_IO_FLUSHER,
  SECCOMP_FILTER_FLAG_TSYNC,
  SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
  SECCOMP_RET_ALLOW,
  SECCOMP_RET_ERRNO,
  SECCOMP_SET_MODE_FILTER,
  STRUCT_SECCOMP_DATA,
  STRUCT_SOCK_FILTER,
  STRUCT_SOCK_FPROG,
} from './libc-abi.js';

// A process behind a device has to go on when memory is short: what the machine wants to write, to have memory again, goes
// through it. What it needs for that is partly for its threads to inherit: that is done before the process is started.

/**
 * PR_SET_IO_FLUSHER: when this thread wants memory, the kernel does not write anything for it, which might wait for the very
 * device, and does not slow its own writes down because others wrote too much. It passes to children and new threads, and
 * through execve(2). Answers false where the system does not allow it (CAP_SYS_RESOURCE, Linux 5.6).
 */
export function becomeIoFlusher(): boolean {
  return libc.prctl(PR_SET_IO_FLUSHER, 1) === 0;
}

/** What this thread starts from now on is none. */
export function ceaseToBeIoFlusher(): void {
  libc.prctl(PR_SET_IO_FLUSHER, 0);
}

export function isIoFlusher(): boolean {
  return libc.prctl(PR_GET_IO_FLUSHER, 0) === 1;
}

/** proc(5): never chosen by the OOM killer. */
const OOM_SCORE_ADJ_MIN = -1000;

/**
 * Keeps this process able to work while memory is short: the OOM killer leaves it alone, and its code, once read, stays in
 * memory. Its heap may go to swap.
 *
 * @throws KernelError 'system', or what node:fs throws, where the system does not allow it
 */
export function stayInMemory(): void {
  for (const { start, end } of mappedFiles()) {
    expect('lock memory', libc.mlock2(start, end - start, MLOCK_ONFAULT));
  }
  writeFileSync('/proc/self/oom_score_adj', `${OOM_SCORE_ADJ_MIN}\n`);
}

/**
 * Keeps all of this process in memory, what it gets later too: for one that swap depends on, or a connection.
 *
 * @throws KernelError 'system' where the system does not allow it
 */
export function lockMemory(): void {
  keepGivenMemory();
  expect('lock memory', libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
}

/** <asm/unistd.h> and AUDIT_ARCH_* of <linux/audit.h>. */
const numbers = {
  x64: { architecture: 0xc000003e, madvise: 28, seccomp: 317 },
  arm64: { architecture: 0xc00000b7, madvise: 233, seccomp: 277 },
} as const;

/**
 * V8 gives pages back by madvise(2), and ends the process when that fails, as it does where memory is locked (seen). So the
 * kernel is told to answer such calls with a success and to do nothing (seccomp(2): an errno of 0). For every thread of this
 * process, and all that they start.
 */
function keepGivenMemory(): void {
  // Who inherits it needs no second one: advice on what begins within a page is refused by whoever looks at it.
  if (libc.madvise(Buffer.allocUnsafeSlow(2).subarray(1), 1, MADV_DONTNEED) === 0) return;
  const { architecture, madvise, seccomp } = numbers[process.arch === 'arm64' ? 'arm64' : 'x64']; // libc.ts knows no other
  const { nr, arch, args } = STRUCT_SECCOMP_DATA;
  const adviceAt = args + 2 * 8; // the third argument, of which the lower half
  // A jump is counted from the next instruction.
  const filter = instructions([
    [BPF_LD_W_ABS, 0, 0, arch],
    [BPF_JMP_JEQ_K, 0, 5, architecture],
    [BPF_LD_W_ABS, 0, 0, nr],
    [BPF_JMP_JEQ_K, 0, 3, madvise],
    [BPF_LD_W_ABS, 0, 0, adviceAt],
    [BPF_JMP_JEQ_K, 2, 0, MADV_DONTNEED],
    [BPF_JMP_JEQ_K, 1, 0, MADV_FREE],
    [BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW],
    [BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO],
  ]);
  const program = Buffer.alloc(STRUCT_SOCK_FPROG.sizeof);
  program.writeUInt16LE(filter.length / STRUCT_SOCK_FILTER.sizeof, STRUCT_SOCK_FPROG.len);
  program.writeBigUInt64LE(BigInt(libc.addressOf(filter)), STRUCT_SOCK_FPROG.filter);
  const flags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
  const filtered = libc.seccomp(seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
  expect('keep V8 from giving locked memory back', filtered);
}

function instructions(lines: readonly (readonly [code: number, jt: number, jf: number, k: number])[]): Buffer {
  const { sizeof, code: codeAt, jt: jtAt, jf: jfAt, k: kAt } = STRUCT_SOCK_FILTER;
  const bytes = Buffer.allocUnsafeSlow(lines.length * sizeof); // it must not move
  for (const [index, [code, jt, jf, k]] of lines.entries()) {
    const at = index * sizeof;
    bytes.writeUInt16LE(code, at + codeAt);
    bytes.writeUInt8(jt, at + jtAt);
    bytes.writeUInt8(jf, at + jfAt);
    bytes.writeUInt32LE(k, at + kAt);
  }
  return bytes;
}

/** The ranges of addresses of programs and libraries: proc_pid_maps(5). */
function mappedFiles(): readonly { readonly start: number; readonly end: number }[] {
  const lines = readFileSync('/proc/self/maps', 'utf8').matchAll(/^([0-9a-f]+)-([0-9a-f]+) .* \/.*$/gm);
  return [...lines].map(([, start = '', end = '']) => ({
    start: Number.parseInt(start, 16),
    end: Number.parseInt(end, 16),
  }));
}
