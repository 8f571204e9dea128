// Verdicts as they are said, and counted.

/** A line each, in the form that `tallyVerdicts` reads. */
export class Verdicts {
  passed = 0;
  failed = 0;
  skipped = 0;
  failures = [];

  ok(text) {
    this.passed += 1;
    console.log(`  ok ${text}`);
  }

  fail(text, lines = []) {
    this.failed += 1;
    this.failures.push(text);
    console.log([`FAIL ${text}`, ...lines.slice(-40).map(line => `     ${line}`)].join('\n'));
  }

  skip(text, reason) {
    this.skipped += 1;
    console.log(`skip ${text} (${reason})`);
  }
}
