/**
 * Why a client is not served any more.
 * - 'refused': it was never served, as many as allowed are there
 * - 'violation': the client sent what cannot be understood, or more than we take
 * - 'lost': the connection broke, or the client left in the middle of a request
 * - 'died': the worker broke; 'system': no thread could be started, or what was written could not be flushed at the end
 */
export type ServerErrorCode = 'refused' | 'violation' | 'lost' | 'died' | 'system';

/** The one error of this room; its message is a sentence for the user. */
export class ServerError extends Error {
  override readonly name = 'ServerError';
  readonly code: ServerErrorCode;

  constructor(code: ServerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
