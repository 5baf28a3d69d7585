/** How an attach or a detach fails for reasons of its own; other rooms' errors pass through it unchanged. */
export type AttachErrorCode = 'busy' | 'refused' | 'lost' | 'no-connection' | 'time-limit' | 'interrupted' | 'system';

export class AttachError extends Error {
  override readonly name = 'AttachError';
  readonly code: AttachErrorCode;

  constructor(code: AttachErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
