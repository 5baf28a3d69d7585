/**
 * Why a negotiation failed.
 * - 'not-nbd': the other side does not speak NBD; 'oldstyle': only in the style that ended with nbd 3.10
 * - 'closed': it closed the connection early; 'violation': it broke the specification; 'too-big': it passed a limit of ours
 * - 'unusable-export': the export's size or block sizes cannot be worked with
 * - 'aborted': the client took its leave by NBD_OPT_ABORT
 * - the rest: what the server answered (proto.md, 'Option reply types')
 */
export type ProtocolErrorCode =
  | 'not-nbd'
  | 'oldstyle'
  | 'closed'
  | 'violation'
  | 'too-big'
  | 'unusable-export'
  | 'aborted'
  | 'unknown-export'
  | 'unsupported'
  | 'policy'
  | 'invalid'
  | 'platform'
  | 'tls-required'
  | 'shutdown'
  | 'block-size-required'
  | 'refused';

/** The one error of this room; its message is a sentence for the user. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
