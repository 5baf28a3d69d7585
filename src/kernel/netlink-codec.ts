import { KernelError } from './errors.js';
import {
  NLA_ALIGNTO,
  NLA_F_NESTED,
  NLA_TYPE_MASK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSG_ERROR,
  NLMSGERR_ATTR_MSG,
  STRUCT_GENLMSGHDR,
  STRUCT_NLATTR,
  STRUCT_NLMSGHDR,
} from './netlink-abi.js';

// Generic netlink as bytes: messages, and the attributes in them. Pure, and in the byte order of x86-64 and arm64 Linux.
// What the kernel answers is taken apart as if anybody had sent it: every length is checked before it is used.

/** A u32, a u64, a string, or attributes within an attribute. */
export type AttributeValue =
  | { readonly u32: number }
  | { readonly u64: number }
  | { readonly text: string }
  | { readonly nested: readonly Attribute[] };

export interface Attribute {
  readonly type: number;
  readonly value: AttributeValue;
}

/** A request to a family, and what names it in the answers. */
export interface GenericRequest {
  readonly family: number;
  readonly command: number;
  readonly version: number;
  readonly flags: number;
  readonly sequence: number;
  readonly attributes: readonly Attribute[];
}

/** What the kernel sends: an ACK, which ends an answer, or a message of a family. */
export type NetlinkAnswer =
  | {
      readonly kind: 'ack';
      readonly sequence: number;
      /** Positive; 0 is a success. */
      readonly errno: number;
      /** The kernel's own words; '' if it has none. */
      readonly text: string;
    }
  | { readonly kind: 'message'; readonly sequence: number; readonly attributes: ReadonlyMap<number, Uint8Array> };

/** An attribute's length is told by 16 bits. */
const attributeBytesMax = 0xffff;
const errnoBytes = 4;

export function encodeRequest(request: GenericRequest): Uint8Array<ArrayBuffer> {
  const attributes = Buffer.concat(request.attributes.map(encodeAttribute));
  const bytes = new Uint8Array(STRUCT_NLMSGHDR.sizeof + STRUCT_GENLMSGHDR.sizeof + attributes.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(STRUCT_NLMSGHDR.nlmsg_len, bytes.length, true);
  view.setUint16(STRUCT_NLMSGHDR.nlmsg_type, request.family, true);
  view.setUint16(STRUCT_NLMSGHDR.nlmsg_flags, request.flags, true);
  view.setUint32(STRUCT_NLMSGHDR.nlmsg_seq, request.sequence, true);
  view.setUint8(STRUCT_NLMSGHDR.sizeof + STRUCT_GENLMSGHDR.cmd, request.command);
  view.setUint8(STRUCT_NLMSGHDR.sizeof + STRUCT_GENLMSGHDR.version, request.version);
  bytes.set(attributes, STRUCT_NLMSGHDR.sizeof + STRUCT_GENLMSGHDR.sizeof);
  return bytes;
}

/** The messages of one datagram. @throws KernelError 'system' when they do not hold together */
export function parseAnswers(datagram: Uint8Array): readonly NetlinkAnswer[] {
  const answers: NetlinkAnswer[] = [];
  for (let at = 0; at < datagram.length; ) {
    const view = viewOf(datagram.subarray(at));
    const length = view.byteLength < STRUCT_NLMSGHDR.sizeof ? 0 : view.getUint32(STRUCT_NLMSGHDR.nlmsg_len, true);
    if (length < STRUCT_NLMSGHDR.sizeof || length > view.byteLength) throw malformed('a message');
    answers.push(parseAnswer(datagram.subarray(at, at + length)));
    at += aligned(length);
  }
  return answers;
}

/** The attributes of a message or of an attribute, by type; of several with one type the last. @throws KernelError 'system' */
export function parseAttributes(bytes: Uint8Array): ReadonlyMap<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length; ) {
    const view = viewOf(bytes.subarray(at));
    const length = view.byteLength < STRUCT_NLATTR.sizeof ? 0 : view.getUint16(STRUCT_NLATTR.nla_len, true);
    if (length < STRUCT_NLATTR.sizeof || length > view.byteLength) throw malformed('an attribute');
    const type = view.getUint16(STRUCT_NLATTR.nla_type, true) & NLA_TYPE_MASK;
    attributes.set(type, bytes.subarray(at + STRUCT_NLATTR.sizeof, at + length));
    at += aligned(length);
  }
  return attributes;
}

/** The integer of 2 or 4 bytes that an attribute holds. @throws KernelError 'system' when it has another length */
export function attributeInteger(attributes: ReadonlyMap<number, Uint8Array>, type: number, bytes: 2 | 4): number {
  const value = attributes.get(type);
  if (value?.length !== bytes) throw malformed(`the attribute ${type}`);
  return bytes === 2 ? viewOf(value).getUint16(0, true) : viewOf(value).getUint32(0, true);
}

function parseAnswer(message: Uint8Array): NetlinkAnswer {
  const view = viewOf(message);
  const sequence = view.getUint32(STRUCT_NLMSGHDR.nlmsg_seq, true);
  const payload = message.subarray(STRUCT_NLMSGHDR.sizeof);
  if (view.getUint16(STRUCT_NLMSGHDR.nlmsg_type, true) === NLMSG_ERROR) {
    return parseAck(sequence, view.getUint16(STRUCT_NLMSGHDR.nlmsg_flags, true), payload);
  }
  if (payload.length < STRUCT_GENLMSGHDR.sizeof) throw malformed('a message of a family');
  return { kind: 'message', sequence, attributes: parseAttributes(payload.subarray(STRUCT_GENLMSGHDR.sizeof)) };
}

/** struct nlmsgerr: −errno, the header of the request, the rest of it unless it is left out, then attributes. */
function parseAck(sequence: number, flags: number, payload: Uint8Array): NetlinkAnswer {
  if (payload.length < errnoBytes + STRUCT_NLMSGHDR.sizeof) throw malformed('an acknowledgement');
  const view = viewOf(payload);
  const errno = 0 - view.getInt32(0, true);
  if (errno < 0) throw malformed('an acknowledgement');
  if ((flags & NLM_F_ACK_TLVS) === 0) return { kind: 'ack', sequence, errno, text: '' };
  const quoted =
    (flags & NLM_F_CAPPED) === 0
      ? view.getUint32(errnoBytes + STRUCT_NLMSGHDR.nlmsg_len, true)
      : STRUCT_NLMSGHDR.sizeof;
  if (quoted < STRUCT_NLMSGHDR.sizeof || errnoBytes + quoted > payload.length) throw malformed('an acknowledgement');
  const said = parseAttributes(payload.subarray(errnoBytes + aligned(quoted))).get(NLMSGERR_ATTR_MSG);
  return { kind: 'ack', sequence, errno, text: said === undefined ? '' : textOf(said) };
}

function encodeAttribute({ type, value }: Attribute): Buffer {
  const payload = encodeValue(value);
  const length = STRUCT_NLATTR.sizeof + payload.length;
  if (length > attributeBytesMax) throw new KernelError('system', `an attribute of ${length} bytes is too long`);
  const bytes = Buffer.alloc(aligned(length));
  bytes.writeUInt16LE(length, STRUCT_NLATTR.nla_len);
  bytes.writeUInt16LE('nested' in value ? type | NLA_F_NESTED : type, STRUCT_NLATTR.nla_type);
  bytes.set(payload, STRUCT_NLATTR.sizeof);
  return bytes;
}

function encodeValue(value: AttributeValue): Uint8Array {
  if ('nested' in value) return Buffer.concat(value.nested.map(encodeAttribute));
  if ('text' in value) return Buffer.from(`${value.text}\0`);
  const bytes = Buffer.alloc('u32' in value ? 4 : 8);
  if ('u32' in value) bytes.writeUInt32LE(value.u32);
  else bytes.writeBigUInt64LE(BigInt(value.u64));
  return bytes;
}

/** A string ends at its zero, or with the attribute. */
function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(end === -1 ? bytes : bytes.subarray(0, end)).toString('utf8');
}

function aligned(lengthBytes: number): number {
  return Math.ceil(lengthBytes / NLA_ALIGNTO) * NLA_ALIGNTO;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function malformed(what: string): KernelError {
  return new KernelError('system', `the kernel's answer by netlink is not understood: ${what} of a wrong length`);
}
