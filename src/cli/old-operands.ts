import { about, UsageError } from './errors.js';
import { blockSizeBytes, timeoutSeconds } from './option-values.js';
import type { Operands } from './parse.js';

/** How nbd-client was told of block size and time limit before it had options, and still is by scripts. */
const OLD_OPERAND = /^(bs|timeout)=/;

interface OldOperands {
  readonly blockSizeBytes: number | undefined;
  readonly requestTimeoutSeconds: number | undefined;
  /** What to tell who typed them, a sentence each. */
  readonly notices: readonly string[];
}

/** Takes `bs=N` and `timeout=N` out of the operands; `given` are the options that mean the same. */
export function takeOldOperands(
  operands: Operands,
  given: { readonly 'block-size'?: number; readonly timeout?: number },
): OldOperands {
  let { 'block-size': blockSize, timeout } = given;
  const notices = operands.takeLike(OLD_OPERAND).map((operand) => {
    const [name, value = ''] = operand.split('=', 2);
    const option = name === 'bs' ? 'block-size' : 'timeout';
    if ((name === 'bs' ? blockSize : timeout) !== undefined) throw new UsageError(`${operand}: it is given twice`);
    if (name === 'bs') blockSize = about(operand, () => blockSizeBytes(value));
    else timeout = about(operand, () => timeoutSeconds(value));
    return `${operand} is an old spelling of --${option}=${value}`;
  });
  return { blockSizeBytes: blockSize, requestTimeoutSeconds: timeout, notices };
}
