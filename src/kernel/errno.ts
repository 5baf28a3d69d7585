import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

const names: ReadonlyMap<number, string> = new Map(
  // Two names share a number (EAGAIN and EWOULDBLOCK, ENOTSUP and EOPNOTSUPP): the first is the one man pages use.
  Object.entries(constants.errno)
    .reverse()
    .map(([name, number]) => [number, name]),
);

/** The name of a positive errno: 16 is 'EBUSY'; an unknown one is 'errno 4711'. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `errno ${errno}`;
}

/** A positive errno in words and by name: 16 is 'resource busy or locked (EBUSY)'. */
export function errnoText(errno: number): string {
  const words = getSystemErrorMap().get(-errno)?.[1];
  return words === undefined ? errnoName(errno) : `${words} (${errnoName(errno)})`;
}
