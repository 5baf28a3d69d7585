/** A command line that makes no sense; the message is `<what>: <why>`, without the program's name. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'usage';
}

/** Reads one option or operand; what is wrong with it then says which one it was. */
export function about<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`${what}: ${error.message}`);
    throw error;
  }
}
