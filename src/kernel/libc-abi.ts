// Numbers and layouts of the C library's calls as x86-64 and arm64 have them. Every export is compared with the C headers
// by test/kernel-host/abi.test.ts, by its name: a number is a macro, an object named STRUCT_X is struct x.

// <fcntl.h>
export const F_SETFD = 2;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_OFD_GETLK = 36;
export const F_OFD_SETLK = 37;
export const F_DUPFD_CLOEXEC = 1030;
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;
export const O_NONBLOCK = 0o4000;
export const AT_EMPTY_PATH = 0x1000;
export const POSIX_FADV_WILLNEED = 3;
export const O_CLOEXEC = 0o2000000;
export const F_SETPIPE_SZ = 1031;

/** `l_type` and `l_whence` are 16 bits, `l_start` and `l_len` 64, `l_pid` 32, which OFD locks want to be 0. */
export const STRUCT_FLOCK = { sizeof: 32, l_type: 0, l_whence: 2, l_start: 8, l_len: 16, l_pid: 24 } as const;

// <sys/syscall.h>, the same on x86-64 and arm64
export const NR_IO_URING_SETUP = 425;
export const NR_IO_URING_ENTER = 426;
export const NR_PIDFD_OPEN = 434;
export const NR_PIDFD_GETFD = 438;

// <linux/io_uring.h>
export const IORING_OP_FSYNC = 3;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
export const IORING_ENTER_GETEVENTS = 1;
export const IORING_FSYNC_DATASYNC = 1;
export const IORING_FEAT_SINGLE_MMAP = 1;
export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x10000000;

/** All fields are 32 bits; those of `sq_off` and `cq_off` are offsets in the memory that both rings share. */
export const STRUCT_IO_URING_PARAMS = {
  sizeof: 120,
  sq_entries: 0,
  cq_entries: 4,
  features: 20,
  'sq_off.tail': 44,
  'sq_off.array': 64,
  'cq_off.head': 80,
  'cq_off.tail': 84,
  'cq_off.cqes': 100,
} as const;

/** `opcode` is 8 bits, `fd` and `len` 32, `off`, `addr` and `user_data` 64. */
export const STRUCT_IO_URING_SQE = {
  sizeof: 64,
  opcode: 0,
  fd: 4,
  off: 8,
  addr: 16,
  len: 24,
  fsync_flags: 28,
  user_data: 32,
} as const;

/** `user_data` is 64 bits, `res` 32. */
export const STRUCT_IO_URING_CQE = { sizeof: 16, user_data: 0, res: 8 } as const;

// <sys/mman.h>
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_ANONYMOUS = 0x20;
export const MAP_POPULATE = 0x8000;
export const MADV_DONTNEED = 4;
export const MLOCK_ONFAULT = 1;
export const MADV_FREE = 8;
export const MCL_CURRENT = 1;
export const MCL_FUTURE = 2;
export const MCL_ONFAULT = 4;

// <linux/prctl.h>
export const PR_SET_IO_FLUSHER = 57;
export const PR_GET_IO_FLUSHER = 58;

// <linux/seccomp.h>
export const SECCOMP_SET_MODE_FILTER = 1;
/** For all threads; if one of them cannot have it the call fails with ESRCH (Linux 5.7). */
export const SECCOMP_FILTER_FLAG_TSYNC = 1;
export const SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 16;
export const SECCOMP_RET_ERRNO = 0x00050000;
export const SECCOMP_RET_ALLOW = 0x7fff0000;

/** `nr` and `arch` are 32 bits, `args` six numbers of 64. */
export const STRUCT_SECCOMP_DATA = { sizeof: 64, nr: 0, arch: 4, args: 16 } as const;

// <linux/filter.h>, <linux/bpf_common.h>
export const BPF_LD_W_ABS = 0x20;
export const BPF_JMP_JEQ_K = 0x15;
export const BPF_RET_K = 0x06;

/** `code` is 16 bits, `jt` and `jf` 8, `k` 32. */
export const STRUCT_SOCK_FILTER = { sizeof: 8, code: 0, jt: 2, jf: 3, k: 4 } as const;
/** `len` is 16 bits, `filter` a pointer. */
export const STRUCT_SOCK_FPROG = { sizeof: 16, len: 0, filter: 8 } as const;

// <stdio.h>
export const SEEK_SET = 0;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

// <sys/stat.h>
export const STATX_DIOALIGN = 0x2000;

/** All three fields are 32 bits. */
export const STRUCT_STATX = { sizeof: 256, stx_mask: 0, stx_dio_mem_align: 152, stx_dio_offset_align: 156 } as const;

// <linux/falloc.h>
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

// <sys/socket.h>
export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SHUT_RD = 0;
export const SHUT_RDWR = 2;
export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVTIMEO = 20;
export const SO_SNDBUFFORCE = 32;
export const SO_DOMAIN = 39;
export const SO_MEMINFO = 55;
/** Numbers of 32 bits that SO_MEMINFO answers, and which of them is what was sent and not yet received. */
export const SK_MEMINFO_VARS = 9;
export const SK_MEMINFO_WMEM_ALLOC = 2;

/** Two longs: a duration in seconds and microseconds. */
export const STRUCT_TIMEVAL = { sizeof: 16, tv_sec: 0, tv_usec: 8 } as const;

// <sys/resource.h>
export const RUSAGE_THREAD = 1;
export const STRUCT_RUSAGE = { sizeof: 144, ru_nvcsw: 128 } as const;

// <netinet/tcp.h>
export const IPPROTO_TCP = 6;
export const TCP_INFO = 11;

/** The fields that are of use here are 8 bits. */
export const STRUCT_TCP_INFO = { sizeof: 104, tcpi_retransmits: 2, tcpi_last_ack_recv: 56 } as const;

// <poll.h>
export const POLLIN = 0x001;
export const POLLOUT = 0x004;
export const POLLHUP = 0x010;

/** `fd` is 32 bits, `events` and `revents` 16. */
export const STRUCT_POLLFD = { sizeof: 8, fd: 0, events: 4, revents: 6 } as const;

// <signal.h>
export const SIG_BLOCK = 0;
export const STRUCT_SIGSET_T = { sizeof: 128 } as const;

// <sched.h>
export const CLONE_FILES = 0x400;
export const SCHED_OTHER = 0;
export const SCHED_BATCH = 3;
export const STRUCT_SCHED_PARAM = { sizeof: 4, sched_priority: 0 } as const;

// <linux/capability.h>
export const CAP_SYS_ADMIN = 21;
