/** Thrown when a belief of the program about itself is wrong: a bug, never something a peer, a user or an image can cause. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Stops the caller when `condition` is false: going on after a broken invariant could lose data. */
export function invariant(condition: boolean, broken: string): asserts condition {
  if (!condition) throw new InvariantError(`invariant broken: ${broken}`);
}
