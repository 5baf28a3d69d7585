import { expect, test } from 'vitest';
import { CLIENTS_MAX, type Place, Places } from '#tsnbd/server/places.js';

test.each([
  [1, 'a client is served already, no more are allowed'],
  [3, '3 clients are served already, no more are allowed'],
  [undefined, `${CLIENTS_MAX} clients are served already, no more are allowed`],
])('with a bound of %j so many places are taken and not one more, until one is free again', (bound, why) => {
  const places = new Places(bound);
  const taken: Place[] = [];
  for (let count = 0; count < (bound ?? CLIENTS_MAX); count += 1) {
    const place = places.newcomer();
    expect(place.refusal()).toBeUndefined();
    place.take();
    taken.push(place);
  }
  const beyond = places.newcomer();
  expect(beyond.refusal()).toBe(why);
  expect(beyond.told).toMatchObject({ code: 'refused', message: why });
  beyond.leave(); // it had none
  expect(places.newcomer().refusal()).toBe(why);
  taken[0]?.leave();
  taken[0]?.leave();
  expect(beyond.refusal()).toBeUndefined();
  beyond.take();
  expect(places.newcomer().refusal()).toBe(why);
});
