import { createRequire } from 'node:module';
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';
import type { DataType } from 'ffi-rs';
import { invariant } from '../base/invariant.js';
import { KernelError } from './errors.js';
import {
  MAP_ANONYMOUS,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  NR_IO_URING_ENTER,
  NR_IO_URING_SETUP,
  NR_PIDFD_GETFD,
  NR_PIDFD_OPEN,
  PROT_READ,
  PROT_WRITE,
} from './libc-abi.js';

const library = 'c';
/** What mmap(2) answers instead of an address. */
const MAP_FAILED = -1;
const loadedKey = 'tsnbd: libc is loaded';

/**
 * The C library's calls, the only door to C. Each answers a number ≥ 0 or −errno and throws nothing; pointers are byte
 * arrays that C reads and writes in place. A call blocks its thread, and nothing but the call itself ends the wait.
 */
export const libc = {
  /** ioctl(2) with an argument by value: an integer from 0 to 2^53 − 1. */
  ioctl: (fd: number, request: number, value: number): number => call('ioctl', [fd, request, value]),
  /** fcntl(2) for the commands whose argument is an int or absent (0). */
  fcntl: (fd: number, command: number, value: number): number => call('fcntl', [fd, command, value]),
  /** fcntl(2) for the commands that take a struct flock. */
  fcntlLock: (fd: number, command: number, flock: Uint8Array): number => call('fcntlLock', [fd, command, flock]),
  fallocate: (fd: number, mode: number, offsetBytes: number, lengthBytes: number): number =>
    call('fallocate', [fd, mode, offsetBytes, lengthBytes]),
  /** socketpair(2); `fds` gets two ints of 4 bytes. */
  socketpair: (domain: number, type: number, protocol: number, fds: Uint8Array): number =>
    call('socketpair', [domain, type, protocol, fds]),
  shutdown: (fd: number, how: number): number => call('shutdown', [fd, how]),
  socket: (domain: number, type: number, protocol: number): number => call('socket', [domain, type, protocol]),
  /** connect(2); `address` is a sockaddr of the socket's domain. */
  connect: (fd: number, address: Uint8Array): number => call('connect', [fd, address, address.length]),
  /** setsockopt(2) and getsockopt(2) of an option whose value is `value`, a struct in native byte order. */
  setsockopt: (fd: number, level: number, option: number, value: Uint8Array): number =>
    call('setsockopt', [fd, level, option, value, value.length]),
  getsockopt: (fd: number, level: number, option: number, value: Uint8Array, lengthInOut: Uint8Array): number =>
    call('getsockopt', [fd, level, option, value, lengthInOut]),
  /** poll(2) of the structs pollfd that lie at an address; a limit below 0 is none. */
  poll: (address: number, count: number, limitMs: number): number => callAgain('poll', [address, count, limitMs]),
  /** pipe2(2); `fds` gets two ints of 4 bytes. */
  pipe2: (fds: Uint8Array, flags: number): number => call('pipe2', [fds, flags]),
  /** getrusage(2) into the struct rusage at an address. */
  getrusage: (who: number, address: number): number => callAgain('getrusage', [who, address]),
  /** sendfile(2); at `offsetAddress` lies an off_t. Whatever keeps it from moving anything, the answer is −1. */
  sendfile: (toFd: number, fromFd: number, offsetAddress: number, lengthBytes: number): number =>
    callSilently('sendfile', [toFd, fromFd, offsetAddress, lengthBytes]),
  /** splice(2) from a pipe into a socket, without flags. */
  splice: (pipeFd: number, socketFd: number, lengthBytes: number): number =>
    callAgain('splice', [pipeFd, 0, socketFd, 0, lengthBytes, 0]),
  /** pthread_sigmask(3) of the calling thread; `set` is a sigset_t. */
  pthreadSigmask: (how: number, set: Uint8Array): number => 0 - call('pthreadSigmask', [how, set, 0]),
  /** lseek(2); answers the new position, up to 2^53 − 1. */
  lseek: (fd: number, offsetBytes: number, whence: number): number => call('lseek', [fd, offsetBytes, whence]),
  posixFadvise: (fd: number, offsetBytes: number, lengthBytes: number, advice: number): number =>
    0 - call('posixFadvise', [fd, offsetBytes, lengthBytes, advice]),
  /** statx(2); `path` ends with a zero, `result` is a struct statx. */
  statx: (folderFd: number, path: Uint8Array, flags: number, mask: number, result: Uint8Array): number =>
    call('statx', [folderFd, path, flags, mask, result]),
  /** Where in memory `bytes` lie: memset(3) of none of them answers it. */
  addressOf: (bytes: Uint8Array): number => call('memset', [bytes, 0, 0]),
  /** io_uring_setup(2); `params` is a struct io_uring_params. */
  ioUringSetup: (entries: number, params: Uint8Array): number =>
    call('ioUringSetup', [NR_IO_URING_SETUP, entries, params]),
  /** io_uring_enter(2) without a signal mask. */
  ioUringEnter: (ringFd: number, submit: number, waitFor: number, flags: number): number =>
    callAgain('ioUringEnter', [NR_IO_URING_ENTER, ringFd, submit, waitFor, flags, 0, 0]),
  /** munmap(2) of what mapShared gave; nobody may touch it afterwards. */
  munmap: (memory: Uint8Array): number => call('munmap', [memory, memory.length]),
  /** madvise(2); `memory` begins at a page. */
  madvise: (memory: Uint8Array, lengthBytes: number, advice: number): number =>
    call('madvise', [memory, lengthBytes, advice]),
  /** mlock2(2) of a range of addresses. */
  mlock2: (address: number, lengthBytes: number, flags: number): number =>
    call('mlock2', [address, lengthBytes, flags]),
  /** mlockall(2). */
  mlockall: (flags: number): number => call('mlockall', [flags]),
  /** prctl(2) of the calling thread, for options whose arguments are numbers. */
  prctl: (option: number, value: number): number => call('prctl', [option, value, 0, 0, 0]),
  /** seccomp(2), by its number on this processor; `program` is a struct sock_fprog. */
  seccomp: (number: number, operation: number, flags: number, program: Uint8Array): number =>
    call('seccomp', [number, operation, flags, program]),
  /** execve(2); `path` ends with a zero, the others are addresses of such texts, of which the last is 0. */
  execve: (path: Uint8Array, argv: Uint8Array, envp: Uint8Array): number => call('execve', [path, argv, envp]),
  /** pidfd_open(2) without flags. */
  pidfdOpen: (pid: number): number => call('pidfdOpen', [NR_PIDFD_OPEN, pid, 0]),
  /** pidfd_getfd(2): a duplicate of `fd` of another table of fds. */
  pidfdGetfd: (pidfd: number, fd: number): number => call('pidfdGetfd', [NR_PIDFD_GETFD, pidfd, fd, 0]),
  /** unshare(2), for the calling thread. */
  unshare: (flags: number): number => call('unshare', [flags]),
  schedGetscheduler: (tid: number): number => call('schedGetscheduler', [tid]),
  schedSetscheduler: (tid: number, policy: number, param: Uint8Array): number =>
    call('schedSetscheduler', [tid, policy, param]),
  /** close(2), for fds that Node knows nothing of. */
  close: (fd: number): number => call('close', [fd]),
  /** _exit(2): ends the process at once, blocked threads and all. */
  exit: (status: number): number => call('exit', [status]),
};

// A type that does not fit the value aborts the process, so types stand here and nowhere else. I64 and U64 take numbers;
// I64 is also the null pointer's type, and a pointer's as a result. ioctl and fcntl are variadic in C: on x86-64 and
// arm64 integers go the same way. What names no other result answers an int.
const I32 = 'I32';
const I64 = 'I64';
const U64 = 'U64';
const U8Array = 'U8Array';

interface CFunction {
  readonly symbol: string;
  readonly types: readonly (keyof typeof DataType)[];
  readonly result?: typeof I64;
}

const functions = {
  ioctl: { symbol: 'ioctl', types: [I32, U64, U64] },
  fcntl: { symbol: 'fcntl', types: [I32, I32, I64] },
  fcntlLock: { symbol: 'fcntl', types: [I32, I32, U8Array] },
  fallocate: { symbol: 'fallocate', types: [I32, I32, I64, I64] },
  socketpair: { symbol: 'socketpair', types: [I32, I32, I32, U8Array] },
  shutdown: { symbol: 'shutdown', types: [I32, I32] },
  socket: { symbol: 'socket', types: [I32, I32, I32] },
  connect: { symbol: 'connect', types: [I32, U8Array, I32] },
  setsockopt: { symbol: 'setsockopt', types: [I32, I32, I32, U8Array, I32] },
  getsockopt: { symbol: 'getsockopt', types: [I32, I32, I32, U8Array, U8Array] },
  poll: { symbol: 'poll', types: [I64, U64, I32] },
  pipe2: { symbol: 'pipe2', types: [U8Array, I32] },
  getrusage: { symbol: 'getrusage', types: [I32, I64] },
  sendfile: { symbol: 'sendfile', types: [I32, I32, I64, U64] },
  splice: { symbol: 'splice', types: [I32, I64, I32, I64, U64, I32] },
  pthreadSigmask: { symbol: 'pthread_sigmask', types: [I32, U8Array, I64] },
  lseek: { symbol: 'lseek', types: [I32, I64, I32], result: I64 },
  posixFadvise: { symbol: 'posix_fadvise', types: [I32, I64, I64, I32] },
  statx: { symbol: 'statx', types: [I32, U8Array, I32, U64, U8Array] },
  memset: { symbol: 'memset', types: [U8Array, I32, U64], result: I64 },
  ioUringSetup: { symbol: 'syscall', types: [I64, U64, U8Array] },
  ioUringEnter: { symbol: 'syscall', types: [I64, I64, U64, U64, U64, I64, U64] },
  mmap: { symbol: 'mmap', types: [I64, U64, I32, I32, I32, I64] },
  munmap: { symbol: 'munmap', types: [U8Array, U64] },
  madvise: { symbol: 'madvise', types: [U8Array, U64, I32] },
  mlock2: { symbol: 'mlock2', types: [I64, U64, I32] },
  mlockall: { symbol: 'mlockall', types: [I32] },
  prctl: { symbol: 'prctl', types: [I32, U64, U64, U64, U64] },
  seccomp: { symbol: 'syscall', types: [I64, U64, U64, U8Array] },
  execve: { symbol: 'execve', types: [U8Array, U8Array, U8Array] },
  pidfdOpen: { symbol: 'syscall', types: [I64, I64, U64] },
  pidfdGetfd: { symbol: 'syscall', types: [I64, I64, I64, U64] },
  unshare: { symbol: 'unshare', types: [I32] },
  schedGetscheduler: { symbol: 'sched_getscheduler', types: [I32] },
  schedSetscheduler: { symbol: 'sched_setscheduler', types: [I32, I32, U8Array] },
  close: { symbol: 'close', types: [I32] },
  exit: { symbol: '_exit', types: [I32] },
} as const satisfies Readonly<Record<string, CFunction>>;

type Ffi = typeof import('ffi-rs');

interface Signature {
  readonly symbol: string;
  readonly types: DataType[];
  readonly result: DataType.I32 | DataType.I64;
}

/** The library, and its functions in its own terms. */
interface Binding {
  readonly ffi: Ffi;
  readonly signatures: Readonly<Record<keyof typeof functions, Signature>>;
}

/** This thread's, from its first call on: a command that needs no C does not wait for it. */
let binding: Binding | undefined;

/**
 * Opens the C library and resolves every function, once, on the main thread: ffi-rs keeps what it found in one table
 * without a lock, so this must be done before the first Worker starts. The main thread's first call does it too.
 *
 * @throws KernelError 'system' when the C library or one of its functions is not there, or the processor is another one.
 */
export function loadLibc(): void {
  binding ??= bind();
}

function bind(): Binding {
  const loaded = getEnvironmentData(loadedKey) === true;
  invariant(loaded || isMainThread, 'the C library is loaded on the main thread, before the first worker');
  if (process.arch !== 'x64' && process.arch !== 'arm64') {
    throw new KernelError('system', `tsnbd runs on x86-64 and arm64 processors, not on ${process.arch}`);
  }
  const ffi = requireFfi();
  if (!loaded) {
    ffi.open({ library, path: '' }); // an empty path is the process itself: the libc it runs with
    for (const { symbol } of Object.values(functions)) resolve(ffi, symbol);
    setEnvironmentData(loadedKey, true); // every Worker that starts later gets a copy
  }
  const signatureOf = ({ symbol, types, result }: CFunction): Signature => ({
    symbol,
    types: types.map((type) => ffi.DataType[type]),
    result: result === undefined ? ffi.DataType.I32 : ffi.DataType.I64,
  });
  const named = Object.entries(functions).map(([name, called]) => [name, signatureOf(called)]);
  return { ffi, signatures: Object.fromEntries(named) as Binding['signatures'] };
}

/**
 * ffi-rs has a whole diagnostic report made to learn which C library this is, in each process and thread: most of the time
 * that it takes to load (native-notes/ffi-rs). So it is told that this is glibc, and asks only where that fails.
 */
function requireFfi(): Ffi {
  const require = createRequire(import.meta.filename);
  const { report } = process;
  const { getReport } = report;
  report.getReport = () => ({ header: { glibcVersionRuntime: 'assumed' } });
  try {
    return require('ffi-rs') as Ffi;
  } catch {
    report.getReport = getReport;
    return require('ffi-rs') as Ffi;
  } finally {
    report.getReport = getReport;
  }
}

/** ffi-rs looks a symbol up before it counts types and values: with a type too many it resolves and calls nothing. */
function resolve({ load, DataType }: Ffi, symbol: string): void {
  const { I32 } = DataType;
  try {
    void load({ library, funcName: symbol, retType: I32, paramsType: [I32], paramsValue: [] });
  } catch (cause) {
    if (cause instanceof Error && cause.message.includes('length is not equal')) return;
    throw new KernelError('system', `the C library of this system has no ${symbol}()`, { cause });
  }
}

/** mmap(2) of a ring's memory, shared with the kernel: bytes that are not Node's. Answers them or −errno. */
export function mapShared(fd: number, lengthBytes: number, offsetBytes: number): Uint8Array | number {
  return map(lengthBytes, MAP_SHARED | MAP_POPULATE, fd, offsetBytes);
}

/** mmap(2) of new memory of zeroes, which stays until munmap, whatever becomes of the thread. Answers it or −errno. */
export function mapMemory(lengthBytes: number): Uint8Array | number {
  return map(lengthBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

function map(lengthBytes: number, flags: number, fd: number, offsetBytes: number): Uint8Array | number {
  binding ??= bind();
  const { ffi, signatures } = binding;
  const { symbol, types } = signatures.mmap;
  const { value, errnoCode } = ffi.load<DataType.External, true, false>({
    library,
    funcName: symbol,
    retType: ffi.DataType.External,
    paramsType: types,
    paramsValue: [0, lengthBytes, PROT_READ | PROT_WRITE, flags, fd, offsetBytes],
    errno: true,
  });
  const memory = ffi.createExternalBuffer(value, lengthBytes);
  return libc.addressOf(memory) === MAP_FAILED ? -errnoCode : memory;
}

function call(name: keyof typeof functions, values: (number | Uint8Array)[]): number {
  binding ??= bind();
  const { symbol, types, result } = binding.signatures[name];
  const { value, errnoCode } = binding.ffi.load<DataType.I32 | DataType.I64, true, false>({
    library,
    funcName: symbol,
    retType: result,
    paramsType: types,
    paramsValue: values,
    errno: true,
  });
  // After a success errnoCode is whatever an earlier call left.
  return value === -1 ? -errnoCode : value;
}

/** Of what is called for each request: to be told of errno takes as long as two arguments. Answers −1 for any failure. */
function callSilently(name: keyof typeof functions, values: number[]): number {
  binding ??= bind();
  const { symbol, types, result } = binding.signatures[name];
  return binding.ffi.load<DataType.I32 | DataType.I64, undefined, false>({
    library,
    funcName: symbol,
    retType: result,
    paramsType: types,
    paramsValue: values,
  });
}

/** The same for a call that has done nothing when it fails: it is made a second time, to succeed or to be told why not. */
function callAgain(name: keyof typeof functions, values: number[]): number {
  const value = callSilently(name, values);
  return value === -1 ? call(name, values) : value;
}
