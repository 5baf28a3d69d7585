import type { NbdDevice } from '../kernel/nbd-device.js';
import type { HandshakeMessage } from '../protocol/handshake-message.js';

/** What an attach tells while it goes on. It crosses a process border as JSON, so it holds plain data only. */
export type AttachEvent =
  /** A step begins; the name is the undo stack's. */
  | { readonly kind: 'step'; readonly step: string }
  /** A message of the negotiation with the server. */
  | { readonly kind: 'message'; readonly message: HandshakeMessage }
  /** The server, or the image, said how large it is. */
  | { readonly kind: 'negotiated'; readonly sizeBytes: number }
  /** Something the user should know although the attach goes on. */
  | { readonly kind: 'notice'; readonly text: string }
  /** The device is usable: size, partitions and their nodes are there. */
  | {
      readonly kind: 'attached';
      readonly device: string;
      readonly kernelApi: NbdDevice['kernelApi'];
      readonly sizeBytes: number;
      readonly blockSizeBytes: number;
      readonly requestTimeoutSeconds: number;
      readonly partitions: readonly string[];
      /** The node of the partition that was waited for. */
      readonly awaited?: string;
    };

export type OnAttachEvent = (event: AttachEvent) => void;
