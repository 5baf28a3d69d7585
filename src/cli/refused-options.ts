import type { RefusedOption } from './option-table.js';

const noTls = 'TLS is not supported yet';
/** Options of nbd-client that tsnbd-client does not have. */
export const REFUSED_OF_NBD_CLIENT: Readonly<Record<string, RefusedOption>> = {
  certfile: { short: 'F', why: noTls },
  keyfile: { short: 'K', why: noTls },
  cacertfile: { short: 'A', why: noTls },
  tlshostname: { short: 'H', why: noTls },
  'enable-tls': { short: 'x', why: noTls },
  priority: { short: 'y', why: noTls },
  sdp: { short: 'S', why: 'Linux has no Sockets Direct Protocol any more' },
  'systemd-mark': {
    short: 'm',
    why: 'a root file system on such a device is not covered: nothing keeps its process at shutdown',
  },
};

/** Options of qemu-nbd that tsnbd does not have. */
export const REFUSED_OF_QEMU_NBD: Readonly<Record<string, RefusedOption>> = {
  P: { short: 'P', why: 'qemu-nbd has it no more; a partition is chosen by --partition N' },
  object: { why: noTls },
  'tls-creds': { why: noTls },
  'tls-authz': { why: noTls },
  'tls-hostname': { why: noTls },
  aio: { why: 'how a disk is waited for is chosen by what is faster: leave it out' },
  'allocation-depth': { short: 'A', why: 'qemu:allocation-depth is there whenever a client asks for it: leave it out' },
  bitmap: { short: 'B', why: 'bitmaps are not served; "tsnbd info" lists them' },
  'image-opts': { why: 'an image is given by its path, and how it is opened by options such as --format' },
  'selinux-label': {
    why: 'a socket gets the label that its process gives it: start tsnbd with runcon, or by a unit with SELinuxContext',
  },
  trace: { short: 'T', why: 'there are no trace points; --verbose and --debug tell more' },
};
