import { afterEach, beforeAll, describe, test } from 'vitest';
import { assertQuietKernel } from '../kernel/guest.js';
import { expectNothingLeft, newImage, tsnbd } from '../kernel/programs.js';
import { backgroundCalls, calls, expectCleanKills } from './kills.js';

let image = '';
beforeAll(async () => {
  image = await newImage('16M');
});

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

describe('an image’s attach that is killed', () => {
  test.each(calls)('at the n-th of its calls %s leaves the device free for the next', (kinds) =>
    expectCleanKills(kinds, `${tsnbd} -v --nofork -c /dev/nbd0 -f raw ${image}`),
  );

  test.each(backgroundCalls)('at the n-th call %s, its command or its process, leaves the device free', (kinds) =>
    expectCleanKills(kinds, `${tsnbd} -v -c /dev/nbd0 -f raw ${image}`),
  );
});
