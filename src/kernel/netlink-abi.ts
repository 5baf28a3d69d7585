// Numbers and layouts of generic netlink and of the nbd driver's family, the same on x86-64 and arm64, in native byte
// order. Every export is compared with the C headers by test/kernel-host/abi.test.ts.

// <sys/socket.h>, <linux/netlink.h>
export const AF_NETLINK = 16;
export const NETLINK_GENERIC = 16;
export const SOL_NETLINK = 270;
/** Answers to a request that failed leave the request itself out. */
export const NETLINK_CAP_ACK = 10;
/** They carry the kernel's own words, where it has some. */
export const NETLINK_EXT_ACK = 11;

/** 16, 16, 32 and 32 bits; a port of 0 is the kernel's. */
export const STRUCT_SOCKADDR_NL = { sizeof: 12, nl_family: 0, nl_pid: 4, nl_groups: 8 } as const;

/** The length is that of the whole message, this header included. */
export const STRUCT_NLMSGHDR = {
  sizeof: 16,
  nlmsg_len: 0,
  nlmsg_type: 4,
  nlmsg_flags: 6,
  nlmsg_seq: 8,
  nlmsg_pid: 12,
} as const;

/** The length includes this header, but not what fills the value up to NLA_ALIGNTO. */
export const STRUCT_NLATTR = { sizeof: 4, nla_len: 0, nla_type: 2 } as const;
export const NLA_ALIGNTO = 4;
export const NLA_F_NESTED = 0x8000;
export const NLA_TYPE_MASK = 0x3fff;

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
/** Of an NLMSG_ERROR: only the header of the request follows the errno. */
export const NLM_F_CAPPED = 0x100;
/** Of an NLMSG_ERROR: attributes follow. */
export const NLM_F_ACK_TLVS = 0x200;

/** Also the ACK of a success: then the errno is 0. */
export const NLMSG_ERROR = 2;
/** A string: what was wrong, in the kernel's words. */
export const NLMSGERR_ATTR_MSG = 1;

// <linux/genetlink.h>
/** 8 bits each. */
export const STRUCT_GENLMSGHDR = { sizeof: 4, cmd: 0, version: 1 } as const;
/** The family that knows the others. */
export const GENL_ID_CTRL = 0x10;
export const CTRL_CMD_GETFAMILY = 3;
export const CTRL_ATTR_FAMILY_ID = 1;
export const CTRL_ATTR_FAMILY_NAME = 2;
/** The highest attribute that a family knows. */
export const CTRL_ATTR_MAXATTR = 5;

// <linux/nbd-netlink.h>
export const NBD_CMD_CONNECT = 1;
export const NBD_CMD_DISCONNECT = 2;
export const NBD_CMD_RECONFIGURE = 3;
export const NBD_ATTR_INDEX = 1;
export const NBD_ATTR_SIZE_BYTES = 2;
export const NBD_ATTR_BLOCK_SIZE_BYTES = 3;
/** Seconds. */
export const NBD_ATTR_TIMEOUT = 4;
/** The transmission flags of the negotiation. */
export const NBD_ATTR_SERVER_FLAGS = 5;
export const NBD_ATTR_CLIENT_FLAGS = 6;
export const NBD_ATTR_SOCKETS = 7;
/** Seconds. */
export const NBD_ATTR_DEAD_CONN_TIMEOUT = 8;
export const NBD_ATTR_BACKEND_IDENTIFIER = 10;
/** In CLIENT_FLAGS: the device is taken away when it is disconnected; it is disconnected when its last opener closes it. */
export const NBD_CFLAG_DESTROY_ON_DISCONNECT = 1;
export const NBD_CFLAG_DISCONNECT_ON_CLOSE = 2;
export const NBD_SOCK_ITEM = 1;
export const NBD_SOCK_FD = 1;
