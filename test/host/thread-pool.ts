import fs from 'node:fs'
import { vi } from 'vitest'

type Callback = (error: NodeJS.ErrnoException | null, bytes: number) => void

export interface PoolCall {
  readonly name: string
  readonly at: number
  readonly bytes: number
  /** What is read into or written from; empty for the others. */
  readonly view: Uint8Array
  readonly end: Callback
}

/**
 * Stands in for the thread pool: calls wait until the test ends them, in any order. Undone by
 * `vi.restoreAllMocks`.
 */
export function threadPool(): PoolCall[] {
  const calls: PoolCall[] = []
  const nothing = new Uint8Array(0)
  const note =
    (name: string) =>
    (_fd: number, view: Uint8Array, _from: number, bytes: number, at: number, end: Callback) => {
      calls.push({ name, at, bytes: Math.min(bytes, view.length), view, end })
    }
  vi.spyOn(fs, 'read').mockImplementation(note('read') as unknown as typeof fs.read)
  vi.spyOn(fs, 'write').mockImplementation(note('write') as unknown as typeof fs.write)
  vi.spyOn(fs, 'fdatasync').mockImplementation(((_fd: number, end: Callback) => {
    calls.push({ name: 'sync', at: 0, bytes: 0, view: nothing, end })
  }) as unknown as typeof fs.fdatasync)
  vi.spyOn(fs, 'ftruncate').mockImplementation(((_fd: number, length: number, end: Callback) => {
    calls.push({ name: 'truncate', at: length, bytes: 0, view: nothing, end })
  }) as unknown as typeof fs.ftruncate)
  return calls
}
