import { requestCounts } from '../kernel/sysfs.js';

/** How long a device has waited for its server: requests are under way, and not one of them comes to its end. */
export class Standstill {
  readonly #device: string;
  #completed = -1;
  #since = 0;

  constructor(device: string) {
    this.#device = device;
  }

  /** In milliseconds; 0 while nothing is under way, or as long as something is done. To be asked again and again. */
  look(): number {
    const { inFlight, completed } = requestCounts(this.#device);
    const now = performance.now();
    if (inFlight === 0 || completed !== this.#completed) this.#since = now;
    this.#completed = completed;
    return now - this.#since;
  }
}
