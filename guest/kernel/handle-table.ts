import type { CompletionPort } from './completion-port.ts'
import type { KEvent } from './dispatcher-object.ts'
import type { FileObject } from './file-object.ts'
import { NtStatus } from './nt-status.ts'

/** What an application holds a number for. */
export type HandleTarget =
  | { readonly kind: 'file'; readonly file: FileObject }
  | { readonly kind: 'event'; readonly event: KEvent }
  | { readonly kind: 'port'; readonly port: CompletionPort }

/** Handles are multiples of this, as on Windows. */
const STEP = 4

/** The process's handles. A number that was closed is used again. */
export class HandleTable {
  readonly #targets: (HandleTarget | null)[]
  readonly #free: number[]

  constructor() {
    this.#targets = [null]
    this.#free = []
  }

  get count(): number {
    return this.#targets.length - 1 - this.#free.length
  }

  insert(target: HandleTarget): number {
    const index = this.#free.pop() ?? this.#targets.length
    this.#targets[index] = target
    return index * STEP
  }

  /** Null when nothing is open there. The two lowest bits are the application's. */
  find(handle: number): HandleTarget | null {
    return this.#targets[Math.floor(handle / STEP)] ?? null
  }

  /** Takes the handle away; what it stood for, or null. */
  remove(handle: number): HandleTarget | null {
    const index = Math.floor(handle / STEP)
    const target = this.#targets[index] ?? null
    if (target !== null) {
      this.#targets[index] = null
      this.#free.push(index)
    }
    return target
  }

  /** The open file, or why there is none. */
  file(handle: number): FileObject | NtStatus {
    const target = this.find(handle)
    if (target === null) return NtStatus.INVALID_HANDLE
    return target.kind === 'file' ? target.file : NtStatus.OBJECT_TYPE_MISMATCH
  }

  event(handle: number): KEvent | NtStatus {
    const target = this.find(handle)
    if (target === null) return NtStatus.INVALID_HANDLE
    return target.kind === 'event' ? target.event : NtStatus.OBJECT_TYPE_MISMATCH
  }

  port(handle: number): CompletionPort | NtStatus {
    const target = this.find(handle)
    if (target === null) return NtStatus.INVALID_HANDLE
    return target.kind === 'port' ? target.port : NtStatus.OBJECT_TYPE_MISMATCH
  }
}
