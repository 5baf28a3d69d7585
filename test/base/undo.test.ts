import { describe, expect, test } from 'vitest';
import { UndoStack } from '#tsnbd/base/undo.js';

describe('the undo stack', () => {
  test('undoes its steps backwards, each with what the step made', async () => {
    const undone: string[] = [];
    const undo = new UndoStack();
    await undo.step(
      'one',
      () => 1,
      (made) => void undone.push(`one ${made}`),
    );
    await undo.step(
      'two',
      async () => 2,
      async (made) => void undone.push(`two ${made}`),
    );
    expect(await undo.undoAll()).toEqual([]);
    expect(undone).toEqual(['two 2', 'one 1']);
  });

  test('a step that fails has nothing to undo, and its error is the caller’s', async () => {
    const undone: string[] = [];
    const undo = new UndoStack();
    await undo.step(
      'one',
      () => 1,
      () => void undone.push('one'),
    );
    const failing = undo.step(
      'two',
      () => Promise.reject(new Error('no')),
      () => void undone.push('two'),
    );
    await expect(failing).rejects.toThrow('no');
    await undo.undoAll();
    expect(undone).toEqual(['one']);
  });

  test('goes on past an undo that fails, and tells which', async () => {
    const undone: string[] = [];
    const undo = new UndoStack();
    const cause = new Error('stuck');
    await undo.step(
      'one',
      () => 1,
      () => void undone.push('one'),
    );
    await undo.step(
      'two',
      () => 2,
      () => Promise.reject(cause),
    );
    expect(await undo.undoAll()).toEqual([{ step: 'two', cause }]);
    expect(undone).toEqual(['one']);
    expect(await undo.undoAll()).toEqual([]);
  });

  test('tells each step before it is done, and can be made to fail there', async () => {
    const told: string[] = [];
    const undo = new UndoStack((step) => {
      told.push(step);
      if (step === 'two') throw new Error('injected');
    });
    let done = false;
    await undo.step('one', () => 1);
    await expect(undo.step('two', () => (done = true))).rejects.toThrow('injected');
    expect(told).toEqual(['one', 'two']);
    expect(done).toBe(false);
  });
});
