import type { Reporter, TestModule } from 'vitest/node';

/** Ends the run's output with the one line `N passed, N failed` that callers of scripts/test read. */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly unknown[]): void {
    let passed = 0;
    let failed = unhandled.length;
    for (const module of modules) {
      let failedHere = 0;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === 'passed') {
          passed += 1;
          const [first] = result.errors ?? [];
          // One that a second try passed: else nobody learns why the first did not.
          if (first !== undefined) process.stdout.write(`tried again: ${test.fullName}: ${first.message}\n`);
        }
        if (result.state === 'failed') failedHere += 1;
        if (result.state === 'skipped') {
          process.stdout.write(`skipped: ${test.fullName}: ${result.note ?? 'no reason given'}\n`);
        }
      }
      // A file that breaks while it is loaded, or in a hook, has no failed test of its own.
      failed += failedHere === 0 && !module.ok() ? 1 : failedHere;
    }
    process.on('exit', () => process.stdout.write(`\n${passed} passed, ${failed} failed\n`));
  }
}
