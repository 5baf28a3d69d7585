import { messageOf } from '../base/message-of.js';

const LOOK_MS = 1_000;

/** Has the requests of an image fail when nobody has served it for so long, while that is still tried. */
export class DeadLimit {
  readonly #limitSeconds: number;
  readonly #fail: () => Promise<boolean>;
  readonly #tell: (text: string) => void;
  #begunAt = 0;
  #timer: NodeJS.Timeout | undefined;
  /** They fail, or are just being made to. */
  #isReached = false;
  #told = '';

  /** `fail` makes them fail, and answers false where somebody serves the image; where it throws, it is called again. */
  constructor(limitSeconds: number, fail: () => Promise<boolean>, tell: (text: string) => void) {
    this.#limitSeconds = limitSeconds;
    this.#fail = fail;
    this.#tell = tell;
  }

  /** From now on nobody serves it, unless that was so before. */
  begin(): void {
    if (this.#timer !== undefined) return;
    this.#begunAt = performance.now();
    this.#isReached = false;
    this.#told = '';
    this.#timer = setInterval(() => void this.#look(), LOOK_MS);
  }

  /** Whatever was tried meanwhile may have had them wait again. */
  goOn(): void {
    this.#isReached = false;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #look(): Promise<void> {
    if (this.#isReached || performance.now() - this.#begunAt < this.#limitSeconds * 1_000) return;
    this.#isReached = true;
    try {
      if (!(await this.#fail())) return;
      this.#tellOnce(`nobody has served the image for ${this.#limitSeconds} s: requests fail until somebody does`);
    } catch (error) {
      this.#isReached = false;
      this.#tellOnce(messageOf(error));
    }
  }

  #tellOnce(text: string): void {
    if (text !== this.#told) this.#tell(text);
    this.#told = text;
  }
}
