import { invariant } from '../../base/invariant.js';

/** Numbers in a page, as a power of two. */
const PAGE_BITS = 14;
const PAGE_NUMBERS = 2 ** PAGE_BITS;
const IN_PAGE = PAGE_NUMBERS - 1;
/** `>>>` takes 32 bits. */
const LENGTH_MAX = 2 ** 32;

type Page = Uint8Array | Uint32Array;

/** A row of numbers, each 0 until it is set. Only those that are near one that was take memory. */
export class SparseNumbers {
  readonly length: number;
  readonly #newPage: (length: number) => Page;
  readonly #pages: (Page | undefined)[];

  constructor(length: number, newPage: (length: number) => Page) {
    invariant(length <= LENGTH_MAX, 'a row of numbers has its end');
    this.length = length;
    this.#newPage = newPage;
    this.#pages = new Array(Math.ceil(length / PAGE_NUMBERS));
  }

  /** 0 for what is outside. */
  get(index: number): number {
    if (index < 0 || index >= this.length) return 0;
    return this.#pages[index >>> PAGE_BITS]?.[index & IN_PAGE] ?? 0;
  }

  set(index: number, value: number): void {
    invariant(index >= 0 && index < this.length, 'a number is set within its row');
    let page = this.#pages[index >>> PAGE_BITS];
    if (page === undefined) {
      page = this.#newPage(PAGE_NUMBERS);
      this.#pages[index >>> PAGE_BITS] = page;
    }
    page[index & IN_PAGE] = value;
  }

  /** The first from `from` on that can be other than 0; `length` where none can. */
  next(from: number): number {
    let page = Math.floor(from / PAGE_NUMBERS);
    while (page < this.#pages.length && this.#pages[page] === undefined) page += 1;
    return Math.min(this.length, Math.max(from, page * PAGE_NUMBERS));
  }
}
