import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

/** What a command of the bench's guest writes: a file that grows, read as it does. */
export class GrowingFile {
  /** @type {Buffer[]} */
  #pieces = [];
  #fd;
  #onBytes;

  /**
   * @param {string} path
   * @param {(bytes: Buffer) => void} onBytes
   */
  constructor(path, onBytes) {
    this.#fd = openSync(path, 'w+');
    this.#onBytes = onBytes;
  }

  read() {
    const { size } = fstatSync(this.#fd);
    const known = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (size <= known) return;
    const bytes = Buffer.alloc(size - known);
    const length = readSync(this.#fd, bytes, 0, bytes.length, known);
    this.#pieces.push(bytes.subarray(0, length));
    this.#onBytes(bytes.subarray(0, length));
  }

  /** Reads what is left and gives the whole text. */
  end() {
    this.read();
    closeSync(this.#fd);
    return Buffer.concat(this.#pieces).toString('utf8');
  }
}
