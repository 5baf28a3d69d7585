import * as constants from './constants.js';

/** A message of a negotiation as one side of it sends or hears it, for whoever follows it. */
export type HandshakeMessage =
  /** Both magics of the server and its handshake flags. */
  | { readonly kind: 'greeting'; readonly flags: number }
  | { readonly kind: 'client-flags'; readonly flags: number }
  | { readonly kind: 'option'; readonly option: number; readonly dataBytes: number }
  /** A client tells it when its header is there, whatever that says: `option` is the one that the server claims to answer. */
  | { readonly kind: 'reply'; readonly option: number; readonly type: number; readonly dataBytes: number }
  /** The answer to NBD_OPT_EXPORT_NAME, which has no header. */
  | { readonly kind: 'export-name-reply'; readonly dataBytes: number };

export type OnHandshakeMessage = (message: HandshakeMessage) => void;

/** A line about it, with the names of the specification; `>` is sent by `side`, `<` heard. */
export function messageInWords(message: HandshakeMessage, side: 'client' | 'server'): string {
  const isOfClient = message.kind === 'client-flags' || message.kind === 'option';
  return `${isOfClient === (side === 'client') ? '>' : '<'} ${wordsOf(message)}`;
}

function wordsOf(message: HandshakeMessage): string {
  switch (message.kind) {
    case 'greeting':
      return `NBDMAGIC IHAVEOPT, handshake flags ${hex(message.flags)}`;
    case 'client-flags':
      return `client flags ${hex(message.flags)}`;
    case 'option':
      return `${optionName(message.option)}, ${message.dataBytes} bytes`;
    case 'reply': {
      const type = nameOf('NBD_REP_', message.type) ?? `reply type ${hex(message.type)}`;
      return `${type} to ${optionName(message.option)}, ${message.dataBytes} bytes`;
    }
    case 'export-name-reply':
      return `answer to NBD_OPT_EXPORT_NAME, ${message.dataBytes} bytes`;
  }
}

function optionName(option: number): string {
  return nameOf('NBD_OPT_', option) ?? `option ${option}`;
}

/** The name of the constant that begins so and has that value. All are looked at, so only when somebody wants to know. */
function nameOf(prefix: string, value: number): string | undefined {
  return Object.entries(constants).find(([name, each]) => name.startsWith(prefix) && each === value)?.[0];
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
