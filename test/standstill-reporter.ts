import { readdirSync, readFileSync } from 'node:fs';
import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * What nothing in a file may take: two tries by the longest time limit of a test, and more. vitest itself ends a test only while
 * its process still takes turns; one that waits within a call of the system is waited for without end.
 */
const PATIENCE_MS = process.env.TSNBD_TEST_LONG === '1' ? 5 * 3_600_000 : 15 * 60_000;
const LOOK_MS = 10_000;
const LINES_MAX = 80;
const COLUMNS_MAX = 150;

interface Running {
  what: string;
  since: number;
}

/** Ends a run that stands still, and says of which test, and what each process of the run waits for. */
export default class StandstillReporter implements Reporter {
  readonly #running = new Map<string, Running>();
  #last: Running = { what: 'the start', since: Date.now() };
  #passed = 0;
  #failed = 0;

  onTestRunStart(): void {
    setInterval(() => this.#look(), LOOK_MS).unref();
  }

  onTestModuleQueued(module: TestModule): void {
    this.#begin(module, 'loading it');
  }

  onTestModuleStart(module: TestModule): void {
    this.#begin(module, 'its first test, or what comes before');
  }

  onTestModuleEnd(module: TestModule): void {
    this.#begin(module, 'what comes after it');
    this.#running.delete(module.id);
  }

  onTestCaseReady(test: TestCase): void {
    this.#begin(test.module, test.fullName);
  }

  onTestCaseResult(test: TestCase): void {
    if (test.result().state === 'failed') this.#failed += 1;
    else this.#passed += 1;
    this.#begin(test.module, `the next after: ${test.fullName}`);
  }

  #begin(module: TestModule, what: string): void {
    this.#last = { what: `${module.relativeModuleId}: ${what}`, since: Date.now() };
    this.#running.set(module.id, this.#last);
  }

  #look(): void {
    const now = this.#running.size === 0 ? [this.#last] : [...this.#running.values()];
    const still = now.filter(({ since }) => Date.now() - since > PATIENCE_MS);
    if (still.length === 0) return;
    for (const line of processes()) process.stdout.write(`${line.slice(0, COLUMNS_MAX)}\n`);
    for (const { what, since } of still) {
      process.stdout.write(`stands still for ${Math.round((Date.now() - since) / 60_000)} min: ${what}\n`);
    }
    process.stdout.write(`\n${this.#passed} passed, ${this.#failed + still.length} failed\n`);
    for (const pid of descendants()) process.kill(pid, 'SIGKILL');
    process.exit(1);
  }
}

/** Two lines a process: what it is, and what its threads wait for. */
function processes(): string[] {
  const lines = descendants().flatMap((pid) => {
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
    const waits = listed(`/proc/${pid}/task`).map(
      (tid) => `${stateOf(pid, tid)} ${read(`/proc/${pid}/task/${tid}/wchan`)}`,
    );
    return [`${pid} of ${parentOf(pid)}: ${command}`, `    ${[...new Set(waits)].join(', ')}`];
  });
  return lines.slice(-LINES_MAX);
}

/** Pids of all that this process has started and that were not given to process 1. */
function descendants(): number[] {
  const all = listed('/proc').filter((name) => /^\d+$/.test(name));
  const parents = new Map(all.map((pid) => [Number(pid), parentOf(Number(pid))]));
  const found = [process.pid];
  for (const pid of found) for (const [child, parent] of parents) if (parent === pid) found.push(child);
  return found.slice(1);
}

const parentOf = (pid: number) => Number(fieldsOf(`/proc/${pid}/stat`)[1]);
const stateOf = (pid: number, tid: string) => fieldsOf(`/proc/${pid}/task/${tid}/stat`)[0];

/** Behind the name, which may have spaces: proc(5), the state first. */
function fieldsOf(stat: string): string[] {
  const text = read(stat);
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // Gone in between.
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
