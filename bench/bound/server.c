// A bound: a server in C that does for READ and WRITE only what no server can do without, in as few calls of the system as can be.
// Where it is no faster than ours, a better program of one thread a connection has little to win. Nothing else of a server is here: no
// checks, no limits, no TLS, one way to be configured; a disk error or a lie of the client ends it. Not for use.
//
//     server [-a] [-s] [-w] [-q] unix:PATH|tcp:PORT IMAGE
//
// -a stays awake between requests, -s sends what is large by reference (splice), -w takes it so. -q: the image is a qcow2 of which
// each cluster is allocated; its tables are read once, and what a request needs of them is an addition.
// The protocol: NetworkBlockDevice/nbd, doc/proto.md. qcow2: QEMU, docs/interop/qcow2.
#define _GNU_SOURCE
#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { TRIES = 200, LARGE = 128 << 10, IN_BYTES = 1 << 20, OUT_BYTES = 8 << 20, PIPE_BYTES = 1 << 20, SEND_BYTES = 4 << 20 };
enum { READ, WRITE, DISC, FLUSH };
enum { HAS_FLAGS = 1, SEND_FLUSH = 4, SEND_FUA = 8, CAN_MULTI_CONN = 256 };
enum { OPT_EXPORT_NAME = 1, OPT_ABORT = 2, OPT_INFO = 6, OPT_GO = 7, OPT_STRUCTURED_REPLY = 8, REP_ACK = 1, REP_INFO = 3 };
static const uint32_t REP_UNSUP = 0x80000001;

struct request {
	uint32_t magic;
	uint16_t flags, type;
	char cookie[8];
	uint64_t offset;
	uint32_t length;
} __attribute__((packed));

struct simple_reply {
	uint32_t magic, error;
	char cookie[8];
} __attribute__((packed));

/** A READ's data as one chunk, the last. */
struct data_chunk {
	uint32_t magic;
	uint16_t flags, type;
	char cookie[8];
	uint32_t length;
	uint64_t offset;
} __attribute__((packed));

static bool awake, sends_by_reference, takes_by_reference;
static int image;
static uint64_t size;
static int cluster_bits;
static uint64_t *clusters; // where each is in the file; NULL for a raw image

static _Noreturn void leave(int socket)
{
	close(socket);
	pthread_exit(NULL);
}

static void take(int socket, void *to, size_t bytes)
{
	for (ssize_t got; bytes > 0; to = (char *)to + got, bytes -= got)
		if ((got = read(socket, to, bytes)) <= 0) leave(socket);
}

static void give(int socket, const void *from, size_t bytes, int flags)
{
	for (ssize_t sent; bytes > 0; from = (const char *)from + sent, bytes -= sent)
		if ((sent = send(socket, from, bytes, flags | MSG_NOSIGNAL)) <= 0) leave(socket);
}

static void answer_option(int socket, uint32_t option, uint32_t type, const void *data, uint32_t bytes)
{
	struct { uint64_t magic; uint32_t option, type, bytes; } __attribute__((packed))
	head = {htobe64(0x3e889045565a9), htobe32(option), htobe32(type), htobe32(bytes)};
	give(socket, &head, sizeof head, bytes > 0 ? MSG_MORE : 0);
	give(socket, data, bytes, 0);
}

/** Whether the client asked for structured replies: it pays for them, with a call more a READ, and so with any server. */
static bool negotiate(int socket)
{
	const struct { uint64_t size; uint16_t flags; } __attribute__((packed))
	export = {htobe64(size), htobe16(HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN)};
	bool structured = false;
	uint32_t client_flags;
	give(socket, "NBDMAGICIHAVEOPT\0\3", 18, 0);
	take(socket, &client_flags, sizeof client_flags);
	for (;;) {
		struct { uint64_t magic; uint32_t option, bytes; } head;
		char data[65536], info[12] = {0};
		take(socket, &head, sizeof head);
		const uint32_t option = be32toh(head.option), bytes = be32toh(head.bytes);
		if (bytes > sizeof data) errx(1, "an option of %u bytes", bytes);
		take(socket, data, bytes);
		if (option == OPT_EXPORT_NAME) {
			char zeroes[124] = {0};
			give(socket, &export, sizeof export, 0);
			if (!(be32toh(client_flags) & 2)) give(socket, zeroes, sizeof zeroes, 0);
			return structured;
		}
		if (option == OPT_INFO || option == OPT_GO) {
			memcpy(info + 2, &export, sizeof export);
			answer_option(socket, option, REP_INFO, info, sizeof info);
		}
		if (option == OPT_STRUCTURED_REPLY) structured = true;
		const bool known = option == OPT_STRUCTURED_REPLY || option == OPT_INFO || option == OPT_GO || option == OPT_ABORT;
		answer_option(socket, option, known ? REP_ACK : REP_UNSUP, NULL, 0);
		if (option == OPT_GO) return structured;
		if (option == OPT_ABORT) leave(socket);
	}
}

/** Where in the image file an offset of the disk is, and how many bytes from there lie side by side. */
static uint64_t at(uint64_t offset, uint64_t *bytes)
{
	if (clusters == NULL) return offset;
	const uint64_t within = offset & ((1ull << cluster_bits) - 1), left = (1ull << cluster_bits) - within;
	if (*bytes > left) *bytes = left;
	return clusters[offset >> cluster_bits] + within;
}

static void read_image(char *to, uint64_t offset, uint64_t bytes)
{
	while (bytes > 0) {
		uint64_t piece = bytes;
		const uint64_t where = at(offset, &piece);
		if (pread(image, to, piece, where) != (ssize_t)piece) err(1, "read");
		to += piece, offset += piece, bytes -= piece;
	}
}

static void write_image(const char *from, uint64_t offset, uint64_t bytes)
{
	while (bytes > 0) {
		uint64_t piece = bytes;
		const uint64_t where = at(offset, &piece);
		if (pwrite(image, from, piece, where) != (ssize_t)piece) err(1, "write");
		from += piece, offset += piece, bytes -= piece;
	}
}

/** Into the pipe first: a disk error has to be known before the header is sent. */
static void send_by_reference(int socket, const int pipe_ends[2], const void *head, size_t head_bytes,
	uint64_t offset, uint64_t bytes)
{
	loff_t where = offset;
	for (uint64_t left = bytes; left > 0;) {
		const ssize_t moved = splice(image, &where, pipe_ends[1], NULL, left, 0);
		if (moved <= 0) err(1, "splice from the image");
		left -= moved;
	}
	give(socket, head, head_bytes, MSG_MORE);
	for (ssize_t moved; bytes > 0; bytes -= moved)
		if ((moved = splice(pipe_ends[0], NULL, socket, NULL, bytes, 0)) <= 0) leave(socket);
}

/** What is in the socket yet of a WRITE's data: to the image. */
static void take_by_reference(int socket, const int pipe_ends[2], uint64_t offset, uint64_t bytes)
{
	loff_t where = offset;
	while (bytes > 0) {
		const ssize_t moved = splice(socket, NULL, pipe_ends[1], NULL, bytes < PIPE_BYTES ? bytes : PIPE_BYTES, 0);
		if (moved <= 0) leave(socket);
		for (ssize_t left = moved; left > 0;) {
			const ssize_t written = splice(pipe_ends[0], NULL, image, &where, left, 0);
			if (written <= 0) err(1, "splice to the image");
			left -= written;
		}
		bytes -= moved;
	}
}

static void transmit(int socket, bool structured)
{
	char *in = aligned_alloc(4096, IN_BYTES), *out = aligned_alloc(4096, OUT_BYTES);
	size_t begin = 0, end = 0, answered = 0;
	int pipe_ends[2];
	if (pipe(pipe_ends) < 0 || fcntl(pipe_ends[1], F_SETPIPE_SZ, PIPE_BYTES) < 0) err(1, "pipe");
	for (bool ended = false; !ended;) {
		while (end - begin >= sizeof(struct request)) {
			struct request request;
			memcpy(&request, in + begin, sizeof request);
			const unsigned type = be16toh(request.type);
			const uint32_t bytes = be32toh(request.length);
			const uint64_t offset = be64toh(request.offset);
			const size_t here = end - begin - sizeof request;
			const bool large = bytes >= LARGE && clusters == NULL;
			// The kernel puts adjacent requests of a device together.
			if (bytes > (type == WRITE ? IN_BYTES - sizeof request : OUT_BYTES / 2)) errx(1, "a request of %u bytes", bytes);
			if (type == WRITE && !(large && takes_by_reference) && here < bytes) break;
			if ((ended = type == DISC)) break;
			struct simple_reply simple = {htobe32(0x67446698), 0, {0}};
			struct data_chunk chunk = {htobe32(0x668e33ef), htobe16(1), htobe16(1), {0}, htobe32(8 + bytes), request.offset};
			memcpy(simple.cookie, request.cookie, sizeof simple.cookie);
			memcpy(chunk.cookie, request.cookie, sizeof chunk.cookie);
			const bool as_chunk = type == READ && structured;
			const void *head = as_chunk ? (void *)&chunk : &simple;
			const size_t head_bytes = as_chunk ? sizeof chunk : sizeof simple;
			if (answered + head_bytes + bytes > OUT_BYTES) give(socket, out, answered, 0), answered = 0;
			begin += sizeof request;
			if (type == READ && large && sends_by_reference) {
				give(socket, out, answered, MSG_MORE), answered = 0;
				send_by_reference(socket, pipe_ends, head, head_bytes, offset, bytes);
				continue;
			}
			memcpy(out + answered, head, head_bytes), answered += head_bytes;
			if (type == READ) read_image(out + answered, offset, bytes), answered += bytes;
			if (type == WRITE) {
				const size_t known = here < bytes ? here : bytes;
				write_image(in + begin, offset, known), begin += known;
				if (known < bytes) take_by_reference(socket, pipe_ends, offset + known, bytes - known);
			}
			if ((type == FLUSH || be16toh(request.flags) & 1) && fdatasync(image) < 0) err(1, "fdatasync");
		}
		if (answered > 0) give(socket, out, answered, 0), answered = 0;
		if (begin > 0) memmove(in, in + begin, end - begin), end -= begin, begin = 0;
		ssize_t got = -1;
		// With -w not more than is likely to be a request's beginning, so that its data can stay in the socket.
		const size_t room = takes_by_reference ? 4096 : IN_BYTES - end;
		for (int tries = 0; awake && got < 0 && tries < TRIES; tries++) got = recv(socket, in + end, room, MSG_DONTWAIT);
		if (got < 0) got = recv(socket, in + end, room, 0);
		if (got <= 0) break;
		end += got;
	}
	free(in), free(out), close(pipe_ends[0]), close(pipe_ends[1]);
}

static void *serve(void *given)
{
	const int socket = (int)(intptr_t)given;
	transmit(socket, negotiate(socket));
	close(socket);
	return NULL;
}

/** The tables of a qcow2 image all of whose clusters are allocated. */
static void read_tables(void)
{
	struct { uint32_t magic, version; uint64_t backing; uint32_t backing_size, bits; uint64_t size; uint32_t crypt, l1_size; uint64_t l1; }
	__attribute__((packed)) head;
	if (pread(image, &head, sizeof head, 0) != sizeof head || be32toh(head.magic) != 0x514649fb) errx(1, "no qcow2 image");
	cluster_bits = be32toh(head.bits), size = be64toh(head.size);
	const size_t entries = 1u << (cluster_bits - 3), tables = be32toh(head.l1_size);
	uint64_t *l1 = calloc(tables, 8);
	clusters = calloc(tables * entries, 8);
	if (pread(image, l1, tables * 8, be64toh(head.l1)) != (ssize_t)tables * 8) err(1, "the L1 table");
	for (size_t table = 0; table < tables; table++)
		if (pread(image, clusters + table * entries, entries * 8, be64toh(l1[table]) & 0xfffffffffffe00) != (ssize_t)entries * 8)
			err(1, "an L2 table");
	for (size_t index = 0; index < tables * entries; index++) clusters[index] = be64toh(clusters[index]) & 0xfffffffffffe00;
	for (size_t index = 0; index < size >> cluster_bits; index++)
		if (clusters[index] == 0) errx(1, "cluster %zu is not allocated", index);
	free(l1);
}

static int listen_on(const char *where)
{
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	struct sockaddr_in remote = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	const int yes = 1, is_unix = strncmp(where, "unix:", 5) == 0;
	const int socket_fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
	if (is_unix) strncpy(local.sun_path, where + 5, sizeof local.sun_path - 1), unlink(local.sun_path);
	else remote.sin_port = htons(atoi(where + 4)), setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(socket_fd, is_unix ? (void *)&local : &remote, is_unix ? sizeof local : sizeof remote) < 0) err(1, "%s", where);
	if (listen(socket_fd, 128) < 0) err(1, "%s", where);
	return socket_fd;
}

int main(int count, char **words)
{
	bool qcow2 = false;
	for (int option; (option = getopt(count, words, "aswq")) != -1;) {
		if (option == 'a') awake = true;
		else if (option == 's') sends_by_reference = true;
		else if (option == 'w') takes_by_reference = true;
		else if (option == 'q') qcow2 = true;
		else return 2;
	}
	if (count - optind != 2) errx(2, "an address and an image, please");
	if ((image = open(words[optind + 1], O_RDWR)) < 0) err(1, "%s", words[optind + 1]);
	size = lseek(image, 0, SEEK_END);
	if (qcow2) read_tables();
	// All threads: a client that sends many requests ahead goes on with that when one wakes, which then answers more of them.
	if (sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) < 0) err(1, "sched_setscheduler");
	const int listener = listen_on(words[optind]), yes = 1, bytes = SEND_BYTES;
	for (;;) {
		const int client = accept(listener, NULL, NULL);
		if (client < 0) err(1, "accept");
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); // fails on a unix socket, which has no delay
		if (sends_by_reference) setsockopt(client, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
		pthread_t thread;
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) != 0) errx(1, "no thread");
		pthread_detach(thread);
	}
}
