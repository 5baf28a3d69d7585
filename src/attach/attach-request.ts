import type { OpenOptions } from '../image/open-image.js';
import type { DeviceChoice } from '../kernel/nbd-device.js';
import type { Address } from '../transport/address.js';

/** How the process behind a device is to be. */
export interface ServingChoice {
  /** Swap is to depend on the device: all of its memory is locked. */
  readonly locksMemory: boolean;
  /**
   * The device is detached when what uses it has let it go: from when a file system, swap or a device above uses it, or from
   * when the command that attached it says so (leaveToLastUser). Only netlink has that.
   */
  readonly disconnectOnClose?: 'once used' | 'once told' | undefined;
  /** LVM and md may take what they find on the device for theirs. */
  readonly allowVolumes?: true | undefined;
  /** The attach is done when this partition is there. */
  readonly waitPartition?: PartitionChoice | undefined;
}

/** A partition by its number, or by the label or UUID of itself (GPT) or of the file system in it. */
export type PartitionChoice =
  | { readonly kind: 'number'; readonly number: number }
  | { readonly kind: 'label' | 'uuid'; readonly text: string };

/** What the user decides of an export in place of its server. */
export interface ExportChoice {
  /** Of the device, whole blocks, at most as many bytes as the export has; absent: all of it. */
  readonly sizeBytes?: number | undefined;
  /** Whatever the server says. */
  readonly readOnly?: true | undefined;
  /** How the export is asked for; absent: by NBD_OPT_GO where the server knows that. 'none': it begins with requests at once. */
  readonly handshake?: 'export-name' | 'none' | undefined;
}

/** Of every attach. */
interface AttachPurpose {
  /** It was made for mounts: what mounts it shares it, and the last unmount detaches it. */
  readonly forMounts?: true;
}

/** A remote export becomes a device: made by cli, carried by attach, used by kernel. */
export interface RemoteAttachRequest extends DeviceChoice, ServingChoice, ExportChoice, AttachPurpose {
  readonly kind: 'remote';
  readonly address: Address;
  /** '' is the server's default export. */
  readonly exportName: string;
  /** Asked for by the user; absent: 512, or more where the server demands it. */
  readonly blockSizeBytes: number | undefined;
  /** The kernel drops a request, and the connection, after so long; 0 is never. */
  readonly requestTimeoutSeconds: number;
  /** How many are made, where the server allows more than one. */
  readonly connections: number;
  /** Whether a lost connection is replaced, which only netlink can; 'required' is refused where it cannot be. */
  readonly persist: 'no' | 'where-possible' | 'required';
  /** How long requests wait for that before they fail; 0 is not at all. */
  readonly deadTimeoutSeconds: number;
  /** How long it is tried; absent is without limit. */
  readonly retryLimitSeconds: number | undefined;
  /** No process of ours is to stay behind the device, where the kernel can do without; nothing persists then. */
  readonly unattended: boolean;
}

/** How the user wants an image opened; what is absent is as openImage has it. */
export interface ImageSettings {
  readonly format: OpenOptions['format'];
  readonly readOnly: boolean;
  readonly snapshot: OpenOptions['snapshot'];
  readonly temporary: boolean;
  readonly forceShare: boolean;
  readonly cache: OpenOptions['cache'];
  readonly discard: OpenOptions['discard'];
  readonly detectZeroes: OpenOptions['detectZeroes'];
  readonly part?: OpenOptions['part'];
}

/** An image becomes a device, served by a process of our own over a socketpair. */
export interface ImageAttachRequest extends ImageSettings, DeviceChoice, ServingChoice, AttachPurpose {
  readonly kind: 'image';
  /** Absolute. */
  readonly imagePath: string;
  /** A second process goes on with it when the one that serves it is killed, which only netlink can. */
  readonly persist: boolean;
  /** How long requests wait for another process before they fail, which only netlink can; absent is not at all. */
  readonly deadTimeoutSeconds: number | undefined;
}

export type AttachRequest = RemoteAttachRequest | ImageAttachRequest;
