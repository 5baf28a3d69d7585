import { type DataPlace, type Extent, type Image, NOT_BEGUN } from './image.js';

/** An image in front of another, which does all that a filter does not do in its own way. */
export abstract class ImageFilter implements Image {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  protected readonly lower: Image;

  constructor(lower: Image) {
    this.sizeBytes = lower.sizeBytes;
    this.readOnly = lower.readOnly;
    this.lower = lower;
  }

  get isDirect(): boolean {
    return this.lower.isDirect;
  }

  read(offsetBytes: number, length: number, target: Uint8Array, at: number): number {
    return this.lower.read(offsetBytes, length, target, at);
  }

  write(offsetBytes: number, length: number, source: Uint8Array, at: number, durable: boolean): number {
    return this.lower.write(offsetBytes, length, source, at, durable);
  }

  /** A filter that changes nothing of a write passes this on; any other has its own `write` asked. */
  get beginsWrites(): boolean {
    return false;
  }

  beginWrite(_offsetBytes: number, _length: number, _source: Uint8Array, _at: number): number {
    return NOT_BEGUN;
  }

  get begunWritesFd(): number {
    return this.lower.begunWritesFd;
  }

  takeWrites(waitFor: number, onWritten: (ticket: number, errno: number) => void): void {
    this.lower.takeWrites(waitFor, onWritten);
  }

  zero(offsetBytes: number, length: number, ways: number, durable: boolean): number {
    return this.lower.zero(offsetBytes, length, ways, durable);
  }

  trim(offsetBytes: number, length: number, durable: boolean): number {
    return this.lower.trim(offsetBytes, length, durable);
  }

  status(offsetBytes: number, length: number, extent: Extent): number {
    return this.lower.status(offsetBytes, length, extent);
  }

  get mayHaveHoles(): boolean {
    return this.lower.mayHaveHoles;
  }

  findPlace(offsetBytes: number, length: number, place: DataPlace): boolean {
    return this.lower.findPlace(offsetBytes, length, place);
  }

  letGoPlaces(): void {
    this.lower.letGoPlaces();
  }

  relax(): void {
    this.lower.relax();
  }

  readIntoPipe(offsetBytes: number, length: number, pipeFd: number): number {
    return this.lower.readIntoPipe(offsetBytes, length, pipeFd);
  }

  get lendsPages(): boolean {
    return this.lower.lendsPages;
  }

  takeBackPages(): void {
    this.lower.takeBackPages();
  }

  cache(offsetBytes: number, length: number): number {
    return this.lower.cache(offsetBytes, length);
  }

  flush(): number {
    return this.lower.flush();
  }

  beginFlush(): boolean {
    return this.lower.beginFlush();
  }

  get begunFlushFd(): number {
    return this.lower.begunFlushFd;
  }

  get isFlushDone(): boolean {
    return this.lower.isFlushDone;
  }

  finishFlush(): number {
    return this.lower.finishFlush();
  }

  close(): void {
    this.lower.close();
  }
}
