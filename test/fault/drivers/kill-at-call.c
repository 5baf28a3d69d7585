// Loaded into a program (LD_PRELOAD): ends its process by SIGKILL where it is about to make its KILL_AT-th call of the kinds
// KILL_CALLS ('ioctl,bind'; 'change' is what an image's file is changed and synced by), and makes the file KILL_NOTE first, if there
// is one. With STOP_EVERY it stops by SIGSTOP before each so-many-th call besides, for others to look at what a kill there would
// leave. Calls of all threads count; a process of Node that it starts counts its own, other programs are no part of ours.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char kinds[1000] = ",";
static int at;
static int stop_every;
static const char *note;
static atomic_int calls;

__attribute__((constructor)) static void start(void) {
  if (getenv("KILL_CALLS") == NULL || getenv("KILL_AT") == NULL) return;
  if (strcmp(program_invocation_short_name, "node") != 0) return;
  snprintf(kinds, sizeof kinds, ",%s,", getenv("KILL_CALLS"));
  at = atoi(getenv("KILL_AT"));
  stop_every = getenv("STOP_EVERY") == NULL ? 0 : atoi(getenv("STOP_EVERY"));
  note = getenv("KILL_NOTE");
}

static void reach(const char *kind) {
  char sought[100];
  snprintf(sought, sizeof sought, ",%s,", kind);
  if (strstr(kinds, sought) == NULL) return;
  int call = atomic_fetch_add(&calls, 1) + 1;
  // To this thread: another that takes the signal would let this one go on for a moment.
  if (stop_every > 0 && call % stop_every == 0) raise(SIGSTOP);
  if (call != at) return;
  if (note != NULL) creat(note, 0600);
  kill(getpid(), SIGKILL);
}

// The C library's own declarations of some of these have variable arguments; so ours have other names in C.
#define CALL(kind, result, name, parameters, arguments)          \
  result our_##name parameters __asm__(#name);                   \
  result our_##name parameters {                                 \
    static result(*real) parameters;                             \
    const char *one = kind;                                      \
    if (one != NULL) reach(one);                                 \
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #name); \
    return real arguments;                                       \
  }

#define WRITES(flags) (((flags) & (O_WRONLY | O_RDWR)) != 0 ? "write-open" : NULL)

static int is_netlink(int fd) {
  int domain = 0;
  socklen_t length = sizeof domain;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_NETLINK;
}

#define WRITTEN(fd) (is_netlink(fd) ? "netlink-write" : NULL)

// Of what C takes as variable arguments one is passed on: none of these calls takes more.
CALL("ioctl", int, ioctl, (int fd, unsigned long request, void *argument), (fd, request, argument))
CALL("fcntl", int, fcntl, (int fd, int command, void *argument), (fd, command, argument))
CALL("fcntl", int, fcntl64, (int fd, int command, void *argument), (fd, command, argument))
CALL(WRITES(flags), int, open, (const char *path, int flags, mode_t mode), (path, flags, mode))
CALL(WRITES(flags), int, open64, (const char *path, int flags, mode_t mode), (path, flags, mode))
CALL(WRITES(flags), int, openat, (int folder, const char *path, int flags, mode_t mode), (folder, path, flags, mode))
CALL(WRITES(flags), int, openat64, (int folder, const char *path, int flags, mode_t mode), (folder, path, flags, mode))
CALL("connect", int, connect, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
CALL("socketpair", int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
CALL("bind", int, bind, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
CALL(WRITTEN(fd), ssize_t, write, (int fd, const void *bytes, size_t length), (fd, bytes, length))
CALL("rename", int, rename, (const char *from, const char *to), (from, to))
CALL("unlink", int, unlink, (const char *path), (path))
CALL("mkdir", int, mkdir, (const char *path, mode_t mode), (path, mode))
CALL("chmod", int, chmod, (const char *path, mode_t mode), (path, mode))
CALL("close", int, close, (int fd), (fd))
CALL("shutdown", int, shutdown, (int fd, int how), (fd, how))
CALL("listen", int, listen, (int fd, int backlog), (fd, backlog))
CALL("accept4", int, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags),
     (fd, address, length, flags))
CALL("setsockopt", int, setsockopt, (int fd, int level, int option, const void *value, socklen_t length),
     (fd, level, option, value, length))
CALL("fsync", int, fsync, (int fd), (fd))
CALL("change", ssize_t, pwrite64, (int fd, const void *bytes, size_t length, off_t offset), (fd, bytes, length, offset))
CALL("change", int, fallocate, (int fd, int mode, off_t offset, off_t length), (fd, mode, offset, length))
CALL("change", int, ftruncate64, (int fd, off_t length), (fd, length))
CALL("change", int, fdatasync, (int fd), (fd))
CALL("pthread_create", int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument),
     (thread, attributes, run, argument))
