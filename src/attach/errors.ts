import type { ControlAnswer } from '../daemon/control.js';

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

export class AttachError extends Error {
  override readonly name = 'AttachError';
  readonly code: AttachErrorCode;

  constructor(code: AttachErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** The failure that another process of ours has told. */
export function attachErrorOf({ code, message }: ControlAnswer): AttachError {
  return new AttachError(CODES.find((known) => known === code) ?? 'system', String(message));
}

/** What a device needs that is to outlive its connection. */
export const noNetlink = 'netlink for nbd, which this network namespace, or this kernel, does not have';
