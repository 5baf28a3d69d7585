import type { DeviceSetup } from '../kernel/nbd-device.js';
import type { ImageAttachRequest } from './attach-request.js';
import type { DeviceRecord } from './devices.js';

/** What to run as the next process of a device: which Node, and the entry (attach-process) as a URL. */
export interface Program {
  readonly execPath: string;
  readonly entry: string;
}

/** What a process that goes on with an attached image is told by the one before. */
export interface Succession {
  readonly kind: 'succession';
  readonly device: string;
  readonly request: ImageAttachRequest;
  /** The socket is given. */
  readonly setup: Omit<DeviceSetup, 'sockets'>;
  readonly about: DeviceRecord;
  /** The paths of the files that are given, behind the server's end and the kernel's. */
  readonly files: readonly string[];
}

/** What a process is told that is to go on with an image whose process was killed. */
export interface Revival {
  readonly kind: 'revival';
  readonly device: string;
  readonly request: ImageAttachRequest;
}

/** What a process is told that goes on with an image when its process is killed; the kernel's end is given. */
export interface StandBy {
  readonly kind: 'standby';
  readonly device: string;
  readonly request: ImageAttachRequest;
}

/** What the next process says when it has all but the image: from now on it waits to be told that it may open it. */
export const WAITING = { kind: 'waiting' } as const;
/** The answer: nobody else serves, and it is to go on. */
export interface GoOn {
  readonly kind: 'go on';
  /** How many writes have failed until now. */
  readonly writeErrors: number;
}
