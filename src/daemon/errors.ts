/** How a process of ours failed to be what it should be to the outside. */
export type DaemonErrorCode = 'died' | 'time-limit' | 'not-running' | 'system';

export class DaemonError extends Error {
  override readonly name = 'DaemonError';
  readonly code: DaemonErrorCode;

  constructor(code: DaemonErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
