// The kernel's nbd numbers as x86-64 and arm64 have them. Every export that is a macro in a header is compared with it by
// test/kernel-host/abi.test.ts; the others are named there one by one.

// <linux/nbd.h>: ioctls on /dev/nbdX, `_IO(0xab, n)`, argument by value.
/** Hands a socket over (its fd). The thread that hands the first one over must hand over the others. */
export const NBD_SET_SOCK = 0xab00;
/** Bytes: a power of two from SECTOR_BYTES to the page size. */
export const NBD_SET_BLKSIZE = 0xab01;
/** Bytes. */
export const NBD_SET_SIZE = 0xab02;
/** Starts the device and returns when it has ended. */
export const NBD_DO_IT = 0xab03;
/** Forgets what was set up and fails what still waits. */
export const NBD_CLEAR_SOCK = 0xab04;
/** Sends the server NBD_CMD_DISC on every connection; the device ends when the server has closed them. */
export const NBD_DISCONNECT = 0xab08;
/** Seconds that a request may take; 0 is without limit while there is one connection. */
export const NBD_SET_TIMEOUT = 0xab09;
/** The transmission flags of the negotiation. */
export const NBD_SET_FLAGS = 0xab0a;

// <linux/fs.h>: an ioctl of every block device with partitions; reads their table again.
export const BLKRRPART = 0x125f;

// <linux/nbd.h>: the transmission flag that the kernel wants for more than one socket.
export const NBD_FLAG_CAN_MULTI_CONN = 0x100;

/** sysfs counts `size` in these, whatever the device's block size; it is also the smallest block size. */
export const SECTOR_BYTES = 512;
/** The block size that no kernel refuses: the smallest page size. */
export const PAGE_BYTES = 4096;
