import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { processStartTime } from '../kernel/proc.js';
import { makeRunFolder, runFile } from './run-folder.js';

const STATE_BYTES_MAX = 65_536;

/** Who serves NAME. Believed only while a process with this pid and this start time lives. */
export interface RunState {
  readonly pid: number;
  /** In clock ticks since boot, as /proc/PID/stat has it. */
  readonly startTime: number;
  /** What is attached or served, in the words of the room that wrote it. */
  readonly about: Readonly<Record<string, unknown>>;
}

/** Writes the state of the calling process under NAME, whole or not at all. */
export function writeState(name: string, about: object): void {
  const state = { pid: process.pid, startTime: processStartTime(process.pid) ?? 0, about };
  makeRunFolder();
  // One fixed name: what a killed process left is overwritten by the next, who alone owns the device by then.
  const fresh = runFile(name, '.json.new');
  try {
    writeFileSync(fresh, `${JSON.stringify(state)}\n`, { mode: 0o644, flush: true });
    renameSync(fresh, runFile(name, '.json'));
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
}

/** The state of the living process that serves NAME; absent if there is none, whatever a dead one left. */
export function readState(name: string): RunState | undefined {
  const state = readLastState(name);
  return state !== undefined && isAlive(state) ? state : undefined;
}

/** Whether the process that wrote a state still lives. */
export function isAlive({ pid, startTime }: RunState): boolean {
  return processStartTime(pid) === startTime;
}

/** The state that was written last under NAME, whoever it is of. */
export function readLastState(name: string): RunState | undefined {
  return parseState(readWhole(runFile(name, '.json')));
}

/** Removes every file of NAME: at the end of its process, or what a dead one left. */
export function removeRunFiles(name: string): void {
  for (const suffix of ['.json', '.json.new', '.sock', '.sock.new'] as const)
    rmSync(runFile(name, suffix), { force: true });
}

function readWhole(path: string): string | undefined {
  try {
    const bytes = readFileSync(path);
    return bytes.length <= STATE_BYTES_MAX ? bytes.toString('utf8') : undefined;
  } catch {
    return undefined;
  }
}

function parseState(text: string | undefined): RunState | undefined {
  if (text === undefined) return undefined;
  try {
    const state = JSON.parse(text) as Partial<RunState> | null;
    if (!Number.isSafeInteger(state?.pid) || !Number.isSafeInteger(state?.startTime)) return undefined;
    if (typeof state?.about !== 'object' || state.about === null) return undefined;
    return state as RunState;
  } catch {
    return undefined;
  }
}
