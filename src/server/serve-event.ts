import type { HandshakeMessage } from '../protocol/handshake-message.js';
import type { ReplyStyle } from '../protocol/reply.js';
import type { ConnectionEnd } from './workers.js';

/** What a server tells while it runs. `client` is its place in the order of coming, from 1. */
export type ServeEvent =
  /** Sent or heard in the negotiation. */
  | { readonly kind: 'message'; readonly client: number; readonly message: HandshakeMessage }
  /** The negotiation is done, a worker serves the client now. */
  | {
      readonly kind: 'connected';
      readonly client: number;
      readonly from: string;
      readonly exportName: string;
      readonly replyStyle: ReplyStyle;
    }
  | { readonly kind: 'ended'; readonly client: number; readonly end: ConnectionEnd }
  /** Closed before its first request: it only asked, went wrong, stalled, or was one too many; the error says which. */
  | { readonly kind: 'not-served'; readonly client: number; readonly from: string; readonly error: Error }
  /** Closed by the system, because too many connections are in their handshake, or too many files open. */
  | { readonly kind: 'dropped' }
  /** A worker did not end when it was told to: the process ends now, without waiting for it. */
  | { readonly kind: 'stuck'; readonly clients: number };

export type OnServeEvent = (event: ServeEvent) => void;
