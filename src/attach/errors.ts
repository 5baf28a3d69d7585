/** How an attach or a detach fails for reasons of its own; other rooms' errors pass through it unchanged. */
const CODES = [
  'busy',
  'refused',
  'lost',
  'no-connection',
  'no-partition',
  'ambiguous',
  'time-limit',
  'interrupted',
  'system',
] as const;
export type AttachErrorCode = (typeof CODES)[number];

/** Whether a code that another process told is one of these. */
export function isAttachErrorCode(code: unknown): code is AttachErrorCode {
  return (CODES as readonly unknown[]).includes(code);
}

export class AttachError extends Error {
  override readonly name = 'AttachError';
  readonly code: AttachErrorCode;

  constructor(code: AttachErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
