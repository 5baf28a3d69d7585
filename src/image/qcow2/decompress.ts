import { Decompress as ZstdStream } from 'fzstd';
import type { Compression } from './header.js';
import { boundedFrame } from './zstd-frame.js';

/** A whole cluster out of `source`, which may have anything behind it; absent where it is not one. */
export function decompressCluster(
  compression: Compression,
  source: Uint8Array,
  clusterBytes: number,
): Uint8Array | undefined {
  try {
    return compression === 'zstd' ? unzstd(source, clusterBytes) : inflate(source, clusterBytes);
  } catch {
    return undefined; // both libraries throw errors of their own for bytes that are not theirs
  }
}

/** A bomb is stopped at the limit, with an error. */
function inflate(source: Uint8Array, clusterBytes: number): Uint8Array | undefined {
  const cluster = process.getBuiltinModule('node:zlib').inflateRawSync(source, { maxOutputLength: clusterBytes });
  return cluster.length === clusterBytes ? cluster : undefined;
}

function unzstd(source: Uint8Array, clusterBytes: number): Uint8Array | undefined {
  const frame = boundedFrame(source, clusterBytes);
  if (frame === undefined) return undefined;
  const cluster = new Uint8Array(clusterBytes);
  let length = 0;
  const stream = new ZstdStream((block) => {
    // More than a cluster: set() throws, and ends it.
    cluster.set(block, length);
    length += block.length;
  });
  stream.push(frame, true);
  return length === clusterBytes ? cluster : undefined;
}
