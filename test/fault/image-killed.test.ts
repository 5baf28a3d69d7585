import { afterEach, beforeAll, describe, test } from 'vitest';
import { assertQuietKernel } from '../kernel/guest.js';
import { expectNothingLeft, newImage, tsnbd } from '../kernel/programs.js';
import { backgroundCalls, calls, expectCleanKills, otherBackgroundCalls, otherCalls } from './kills.js';

let image = '';
beforeAll(async () => {
  image = await newImage('16M');
});

afterEach(async () => {
  await expectNothingLeft();
  await assertQuietKernel();
});

describe.each([
  { api: 'netlink', kindsOfCalls: calls, kindsInBackground: backgroundCalls },
  { api: 'ioctl', kindsOfCalls: otherCalls, kindsInBackground: otherBackgroundCalls },
])('an image’s attach by $api that is killed', ({ api, kindsOfCalls, kindsInBackground }) => {
  const attach = (program: string) => `${program} -v --kernel-api=${api} -c /dev/nbd0 -f raw ${image}`;

  test.each(kindsOfCalls)('at the n-th of its calls %s leaves the device to the next', (kinds) =>
    expectCleanKills(kinds, attach(`node ${tsnbd} --nofork`)),
  );

  test.each(kindsInBackground)(
    'at the n-th call %s, its command or its process, leaves the device to the next',
    (kinds) => expectCleanKills(kinds, attach(tsnbd)),
  );
});
