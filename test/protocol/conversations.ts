import { join, wire } from './wire.js';

/**
 * Conversations as they stand on the wire, with the servers they imitate. The client's side is what our own client says.
 */

export const greeting = {
  fixed: wire(`
    4e42444d41474943 # NBDMAGIC
    49484156454f5054 # IHAVEOPT
    0003             # FIXED_NEWSTYLE, NO_ZEROES
  `),
  fixedZeroes: wire(`
    4e42444d41474943 # NBDMAGIC
    49484156454f5054 # IHAVEOPT
    0001             # FIXED_NEWSTYLE
  `),
  newstyle: wire(`
    4e42444d41474943 # NBDMAGIC
    49484156454f5054 # IHAVEOPT
    0000
  `),
  newstyleNoZeroes: wire(`
    4e42444d41474943 # NBDMAGIC
    49484156454f5054 # IHAVEOPT
    0002             # NO_ZEROES
  `),
  oldstyle: wire(`
    4e42444d41474943 # NBDMAGIC
    0000420281861253 # cliserv_magic
    0000000000100000 # 1 MiB
    00000001         # flags
    zeroes(124)
  `),
};

/** A reply to an option: data as in `wire`. */
export function reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const head = Buffer.alloc(12);
  head.writeUInt32BE(option, 0);
  head.writeUInt32BE(type, 4);
  head.writeUInt32BE(data.length, 8);
  return join([wire('0003e889045565a9 # reply magic'), head, data]);
}

/** An option: data as in `wire`. */
export function option(number: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(number, 0);
  head.writeUInt32BE(data.length, 4);
  return join([wire('49484156454f5054 # IHAVEOPT'), head, data]);
}

export const infoExport = wire(`
  0000             # NBD_INFO_EXPORT
  0000000000100000 # 1 MiB
  016d             # HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES MULTI_CONN
`);
export const infoName = wire(`
  0001 # NBD_INFO_NAME
  "disk"
`);
export const infoDescription = wire(`
  0002 # NBD_INFO_DESCRIPTION
  "a disk"
`);
export const infoBlockSize = wire(`
  0003     # NBD_INFO_BLOCK_SIZE
  00000001 # minimum
  00001000 # preferred
  02000000 # maximum payload
`);
const infoUnknown = wire(`
  0fff # no information type of the specification
  0102030405
`);

export const GO = 7;
export const INFO = 6;
export const LIST = 3;
export const ACK = 1;
export const SERVER = 2;
export const REP_INFO = 3;

/** What a server says to a client that asks for 'disk'. */
export const goAnswers = {
  /** qemu-nbd: description and block sizes before the export, name left out when it is the one asked for. */
  qemuNbd: join([
    greeting.fixed,
    reply(GO, REP_INFO, infoName),
    reply(GO, REP_INFO, infoDescription),
    reply(GO, REP_INFO, infoBlockSize),
    reply(GO, REP_INFO, infoExport),
    reply(GO, ACK),
  ]),
  /** nbdkit: the export first. */
  nbdkit: join([greeting.fixed, reply(GO, REP_INFO, infoExport), reply(GO, REP_INFO, infoBlockSize), reply(GO, ACK)]),
  /** nbd-server 3.24: only the export, and still zeroes. */
  nbdServer: join([greeting.fixed, reply(GO, REP_INFO, infoExport), reply(GO, ACK)]),
  /** A server with information from the future. */
  unknownInformation: join([
    greeting.fixed,
    reply(GO, REP_INFO, infoUnknown),
    reply(GO, REP_INFO, infoExport),
    reply(GO, ACK),
  ]),
  unknownExport: join([greeting.fixed, reply(GO, 0x80000006, wire('"export is not there"'))]),
  tlsRequired: join([greeting.fixed, reply(GO, 0x80000005)]),
  /** An older server: EXPORT_NAME is what it knows. */
  fallback: join([
    greeting.fixed,
    reply(GO, 0x80000001),
    wire(`
      0000000000100000 # 1 MiB
      0001             # HAS_FLAGS
    `),
  ]),
  fallbackZeroes: join([
    greeting.fixedZeroes,
    reply(GO, 0x80000001),
    wire(`
      0000000000100000 # 1 MiB
      0001             # HAS_FLAGS
      zeroes(124)
    `),
  ]),
  newstyle: join([
    greeting.newstyle,
    wire(`
      0000000000100000 # 1 MiB
      0003             # HAS_FLAGS READ_ONLY
      zeroes(124)
    `),
  ]),
  newstyleNoZeroes: join([
    greeting.newstyleNoZeroes,
    wire(`
      0000000000100000 # 1 MiB
      0003             # HAS_FLAGS READ_ONLY
    `),
  ]),
  oldstyle: greeting.oldstyle,
};

export const infoAnswers = {
  known: join([
    greeting.fixed,
    reply(INFO, REP_INFO, infoExport),
    reply(INFO, REP_INFO, infoBlockSize),
    reply(INFO, REP_INFO, infoDescription),
    reply(INFO, ACK),
  ]),
  unsupported: join([greeting.fixed, reply(INFO, 0x80000001)]),
  newstyle: greeting.newstyle,
};

const [STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS, EXTENDED, META_CONTEXT, UNSUP] = [8, 9, 10, 11, 4, 0x80000001];
/** With words, as nbdkit and qemu-nbd have them. */
const refusal = (number: number) =>
  reply(number, UNSUP, wire(`"option ${number} is not something that this server has heard of"`));
const context = (id: string, name: string) => join([wire(id), Buffer.from(name)]);
const goReplies = [reply(GO, REP_INFO, infoExport), reply(GO, REP_INFO, infoBlockSize), reply(GO, ACK)];

/** What a server says to a client that would have extended headers, or else structured replies, and contexts. */
export const contextAnswers = {
  extended: join([
    greeting.fixed,
    reply(EXTENDED, ACK),
    reply(SET_CONTEXTS, META_CONTEXT, context('00000007', 'base:allocation')),
    reply(SET_CONTEXTS, META_CONTEXT, context('00000001', 'qemu:allocation-depth')),
    reply(SET_CONTEXTS, ACK),
    ...goReplies,
  ]),
  structured: join([
    greeting.fixed,
    refusal(EXTENDED),
    reply(STRUCTURED, ACK),
    reply(SET_CONTEXTS, META_CONTEXT, context('00000001', 'base:allocation')),
    reply(SET_CONTEXTS, ACK),
    ...goReplies,
  ]),
  withoutContexts: join([
    greeting.fixed,
    refusal(EXTENDED),
    reply(STRUCTURED, ACK),
    reply(SET_CONTEXTS, META_CONTEXT, context('00000001', 'base:allocation')),
    refusal(SET_CONTEXTS),
    ...goReplies,
  ]),
  simple: join([greeting.fixed, refusal(EXTENDED), refusal(STRUCTURED), ...goReplies]),
  onlyExportName: join([
    greeting.fixed,
    refusal(EXTENDED),
    reply(STRUCTURED, ACK),
    reply(SET_CONTEXTS, ACK),
    reply(GO, UNSUP),
    wire(`
      0000000000100000 # 1 MiB
      0001             # HAS_FLAGS
    `),
  ]),
};

/** The same for a client that would know what there is. */
export const describedAnswers = {
  extended: join([
    greeting.fixed,
    reply(EXTENDED, ACK),
    reply(LIST_CONTEXTS, META_CONTEXT, context('00000000', 'base:allocation')),
    reply(LIST_CONTEXTS, META_CONTEXT, context('00000000', 'qemu:dirty-bitmap:')),
    reply(LIST_CONTEXTS, ACK),
    reply(INFO, REP_INFO, infoExport),
    reply(INFO, ACK),
  ]),
  simple: join([
    greeting.fixed,
    refusal(EXTENDED),
    refusal(STRUCTURED),
    reply(INFO, REP_INFO, infoExport),
    reply(INFO, ACK),
  ]),
};

export const listAnswers = {
  two: join([
    greeting.fixed,
    reply(
      LIST,
      SERVER,
      wire(`
        00000004 # length of the name
        "disk"
        "a disk"
      `),
    ),
    reply(
      LIST,
      SERVER,
      wire(`
        00000000 # the default export
      `),
    ),
    reply(LIST, ACK),
  ]),
  none: join([greeting.fixed, reply(LIST, ACK)]),
  policy: join([greeting.fixed, reply(LIST, 0x80000002, wire('"listing is switched off"'))]),
  newstyle: greeting.newstyle,
};

export const clientFlags = wire('00000003 # C_FIXED_NEWSTYLE, C_NO_ZEROES');
export const clientFlagsZeroes = wire('00000001 # C_FIXED_NEWSTYLE');

export const goQuestion = wire(`
  00000004       # length of the name
  "disk"
  0003           # three information requests
  0001 0002 0003 # NAME, DESCRIPTION, BLOCK_SIZE
`);
export const unknownQuestion = wire(`
  00000007 # length of the name
  "nowhere"
  0000     # no information requests
`);

/** What LIST_META_CONTEXT and SET_META_CONTEXT ask for 'disk'. */
export const contextQuestion = wire(`
  00000004 # length of the name
  "disk"
  00000001 # one query
  0000000f # its length
  "base:allocation"
`);
export const twoContexts = wire(`
  00000004 # length of the name
  "disk"
  00000002 # two queries
  0000000f
  "base:allocation"
  00000015
  "qemu:allocation-depth"
`);
/** What our client asks with LIST_META_CONTEXT: for all. */
export const allContexts = wire(`
  00000004 # length of the name
  "disk"
  00000000 # no query
`);

/** What clients say to a server that has 'disk'. */
export const clientSides = {
  go: join([clientFlags, option(GO, goQuestion)]),
  goZeroes: join([clientFlagsZeroes, option(GO, goQuestion)]),
  infoThenGoZeroes: join([clientFlagsZeroes, option(INFO, goQuestion), option(GO, goQuestion)]),
  /** The first request right behind the option. */
  goAndRequest: join([clientFlags, option(GO, goQuestion), wire('25609513 0000 0000 # …')]),
  info: join([clientFlags, option(INFO, goQuestion), option(2)]),
  infoTwice: join([clientFlags, option(INFO, goQuestion), option(INFO, goQuestion), option(2)]),
  infoThenGo: join([clientFlags, option(INFO, goQuestion), option(GO, goQuestion)]),
  list: join([clientFlags, option(LIST), option(2)]),
  listWithData: join([clientFlags, option(LIST, wire('00')), option(2)]),
  exportName: join([clientFlags, option(1, wire('"disk"'))]),
  exportNameZeroes: join([clientFlagsZeroes, option(1, wire('"disk"'))]),
  exportNameUnknown: join([clientFlags, option(1, wire('"nowhere"'))]),
  /** libnbd's order: everything it might use, then GO. */
  libnbd: join([clientFlags, option(11), option(8), option(10, contextQuestion), option(GO, goQuestion)]),
  /** nbdinfo's and qemu-img's order, without extended headers. */
  structured: join([
    clientFlags,
    option(5),
    option(8),
    option(9, allContexts),
    option(10, contextQuestion),
    option(INFO, goQuestion),
    option(GO, goQuestion),
  ]),
  extended: join([clientFlags, option(8), option(11), option(10, contextQuestion), option(GO, goQuestion)]),
  listContexts: join([clientFlags, option(8), option(9, contextQuestion), option(9, allContexts), option(2)]),
  dataWhereNoneBelong: join([
    clientFlags,
    option(5, wire('zeroes(40)')),
    option(8, wire('zeroes(40)')),
    option(11, wire('zeroes(40)')),
    option(GO, goQuestion),
  ]),
  startTls: join([clientFlags, option(5), option(2)]),
  unknownExport: join([clientFlags, option(GO, unknownQuestion), option(2, wire('"bye"'))]),
};
