/** Our limits on what a peer may make us hold or do; each with its unit, and its source where it is not our choice. */

/** Names, descriptions and texts (proto.md, 'Conventions': no longer than 4096 bytes). */
export const STRING_BYTES_MAX = 4096;

/** The data of one option that a client may send; more is taken for an attack. */
export const OPTION_DATA_BYTES_MAX = 65_536;

/** Options a client may send on one connection before it chooses an export. */
export const OPTIONS_MAX = 32;

/** The data of one reply that a server may send to an option. */
export const OPTION_REPLY_BYTES_MAX = 65_536;

/** Information replies to one NBD_OPT_GO or NBD_OPT_INFO. */
export const INFO_REPLIES_MAX = 64;

/** Metadata contexts that a server may list, or select for us: each is a name of up to STRING_BYTES_MAX. */
export const CONTEXTS_MAX = 1_000;

/** Exports that a server may list, and the bytes of all their names and descriptions. */
export const LISTED_EXPORTS_MAX = 10_000;
export const LISTED_BYTES_MAX = 4 * 1024 * 1024;

/** What we show of a text the other side sent, in characters. */
export const SHOWN_TEXT_CHARACTERS_MAX = 256;

/** Data in one READ or WRITE (proto.md, 'Size constraints': up to this is never an attack). */
export const PAYLOAD_BYTES_MAX = 33_554_432;

/** Chunks of one reply: more than the sectors of the longest READ. */
export const CHUNKS_MAX = 131_072;

/** Places of errors that one reply may name; what comes later is compared with each of them. */
export const ERROR_OFFSETS_MAX = 1_024;

/** The payload of an error chunk: a text, and fields that only later versions of the specification know. */
export const ERROR_CHUNK_BYTES_MAX = 8_192;

/** The largest export: offsets stay exact in a number. */
export const EXPORT_SIZE_BYTES_MAX = Number.MAX_SAFE_INTEGER;
