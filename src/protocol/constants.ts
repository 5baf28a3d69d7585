/**
 * Every number of the NBD specification (proto.md, 'Values' and the magics of 'Protocol phases'), under its name there.
 * Some belong to parts of the protocol that we do not speak: they stand here so that a message can be named.
 */

// Magics of the handshake; 64 bits, in the order they appear on the wire.
/** ASCII 'NBDMAGIC', "INIT_PASSWD": the first bytes of every server. */
export const NBD_INIT_MAGIC = 0x4e42444d41474943n;
/** ASCII 'IHAVEOPT': second magic of a newstyle server, first of every option. */
export const NBD_OPTION_MAGIC = 0x49484156454f5054n;
/** "cliserv_magic": second magic of an oldstyle server. */
export const NBD_OLDSTYLE_MAGIC = 0x00420281861253n;
/** First of every reply to an option. */
export const NBD_OPTION_REPLY_MAGIC = 0x0003e889045565a9n;

// Magics of the transmission; 32 bits.
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

// Sizes of the fixed parts of messages, in bytes.
/** Init magic, option magic, handshake flags. */
export const NBD_GREETING_BYTES = 18;
export const NBD_CLIENT_FLAGS_BYTES = 4;
/** Option magic, option, length of its data. */
export const NBD_OPTION_HEADER_BYTES = 16;
/** Reply magic, option, reply type, length of its data. */
export const NBD_OPTION_REPLY_HEADER_BYTES = 20;
/** Export size and transmission flags, the answer to NBD_OPT_EXPORT_NAME. */
export const NBD_EXPORT_NAME_REPLY_BYTES = 10;
/** Reserved zeroes behind that answer unless both sides said NO_ZEROES. */
export const NBD_EXPORT_NAME_ZEROES_BYTES = 124;
export const NBD_REQUEST_BYTES = 28;
export const NBD_EXTENDED_REQUEST_BYTES = 32;
export const NBD_SIMPLE_REPLY_BYTES = 16;
/** The header of a chunk of a structured reply, before its payload. */
export const NBD_STRUCTURED_REPLY_BYTES = 20;
/** The same under extended headers. */
export const NBD_EXTENDED_REPLY_BYTES = 32;

// Handshake flags, 16 bits, from the server.
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;

// Client flags, 32 bits.
export const NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_C_NO_ZEROES = 1 << 1;

// Transmission flags, 16 bits: what the server can do with the export.
export const NBD_FLAG_HAS_FLAGS = 1 << 0;
export const NBD_FLAG_READ_ONLY = 1 << 1;
export const NBD_FLAG_SEND_FLUSH = 1 << 2;
export const NBD_FLAG_SEND_FUA = 1 << 3;
export const NBD_FLAG_ROTATIONAL = 1 << 4;
export const NBD_FLAG_SEND_TRIM = 1 << 5;
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6;
export const NBD_FLAG_SEND_DF = 1 << 7;
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8;
export const NBD_FLAG_SEND_RESIZE = 1 << 9;
export const NBD_FLAG_SEND_CACHE = 1 << 10;
export const NBD_FLAG_SEND_FAST_ZERO = 1 << 11;
export const NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12;

// Option types.
export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_PEEK_EXPORT = 4;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;
export const NBD_OPT_LIST_META_CONTEXT = 9;
export const NBD_OPT_SET_META_CONTEXT = 10;
export const NBD_OPT_EXTENDED_HEADERS = 11;

// Option reply types; an error has bit 31 set.
export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_META_CONTEXT = 4;
export const NBD_REP_FLAG_ERROR = 0x80000000;
export const NBD_REP_ERR_UNSUP = 0x80000001;
export const NBD_REP_ERR_POLICY = 0x80000002;
export const NBD_REP_ERR_INVALID = 0x80000003;
export const NBD_REP_ERR_PLATFORM = 0x80000004;
export const NBD_REP_ERR_TLS_REQD = 0x80000005;
export const NBD_REP_ERR_UNKNOWN = 0x80000006;
export const NBD_REP_ERR_SHUTDOWN = 0x80000007;
export const NBD_REP_ERR_BLOCK_SIZE_REQD = 0x80000008;
export const NBD_REP_ERR_TOO_BIG = 0x80000009;
export const NBD_REP_ERR_EXT_HEADER_REQD = 0x8000000a;

// Information types of NBD_REP_INFO.
export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

// Size constraints.
export const NBD_MINIMUM_BLOCK_BYTES_MAX = 65_536;
export const NBD_PREFERRED_BLOCK_BYTES_MIN = 512;

// Request types.
export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_CACHE = 5;
export const NBD_CMD_WRITE_ZEROES = 6;
export const NBD_CMD_BLOCK_STATUS = 7;
export const NBD_CMD_RESIZE = 8;

// Command flags, 16 bits.
export const NBD_CMD_FLAG_FUA = 1 << 0;
export const NBD_CMD_FLAG_NO_HOLE = 1 << 1;
export const NBD_CMD_FLAG_DF = 1 << 2;
export const NBD_CMD_FLAG_REQ_ONE = 1 << 3;
export const NBD_CMD_FLAG_FAST_ZERO = 1 << 4;
export const NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5;

// Reply flags, 16 bits, of a chunk.
export const NBD_REPLY_FLAG_DONE = 1 << 0;

// Types of chunks; an error has bit 15 set.
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_OFFSET_HOLE = 2;
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5;
export const NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6;
export const NBD_REPLY_TYPE_ERROR = 32_769;
export const NBD_REPLY_TYPE_ERROR_OFFSET = 32_770;

/** Descriptors that a server should send in one status chunk at most. */
export const NBD_STATUS_DESCRIPTORS_MAX = 1_048_576;

// Status flags of a descriptor in the metadata context base:allocation.
export const NBD_STATE_HOLE = 1 << 0;
export const NBD_STATE_ZERO = 1 << 1;

// Error values of a reply.
export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_ENOMEM = 12;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;
/** All of them. */
export const NBD_ERRORS: readonly number[] = [
  NBD_EPERM,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_ENOTSUP,
  NBD_ESHUTDOWN,
];
