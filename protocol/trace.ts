import type { Plain } from './platform.ts'

/**
 * Everything a run says about itself. One id follows a request through every room: the device ring gives it
 * when a chain is taken, and each room below repeats it.
 */
export type TraceEvent =
  | { readonly name: 'doorbell'; readonly device: string; readonly queue: number }
  | { readonly name: 'signal'; readonly device: string; readonly queue: number }
  | { readonly name: 'config'; readonly device: string; readonly generation: number }
  | { readonly name: 'status'; readonly device: string; readonly status: number }
  | {
      readonly name: 'take'
      readonly device: string
      readonly queue: number
      readonly id: number
      readonly head: number
      readonly readableBytes: number
      readonly writableBytes: number
    }
  | {
      readonly name: 'give'
      readonly device: string
      readonly queue: number
      readonly id: number
      readonly head: number
      readonly written: number
    }
  | {
      readonly name: 'block'
      readonly device: string
      readonly id: number
      readonly type: number
      readonly sector: number
      readonly bytes: number
    }
  | {
      readonly name: 'disk'
      readonly path: string
      readonly id: number
      readonly op: string
      readonly offset: number
      readonly bytes: number
    }
  | {
      readonly name: 'answer'
      readonly path: string
      readonly id: number
      readonly outcome: string
      readonly bytes: number
    }
  /** What a read brought: the first 16 hexadecimal digits of its SHA-256, so that other bytes are another trace. */
  | {
      readonly name: 'content'
      readonly path: string
      readonly id: number
      readonly offset: number
      readonly bytes: number
      readonly sha256: string
    }
  /** A fault that a test asked for meets a request. */
  | {
      readonly name: 'fault'
      readonly path: string
      readonly id: number
      readonly op: string
      readonly offset: number
      readonly effect: string
    }
  | {
      readonly name: 'violation'
      readonly device: string
      readonly rule: string
      readonly queue: number | null
    }
  /** A vhost-user message, as it came. */
  | {
      readonly name: 'message'
      readonly device: string
      readonly code: number
      readonly flags: number
      readonly bytes: number
      readonly descriptors: number
    }
  | {
      readonly name: 'arrival'
      /** Counted from 0 over the whole run. */
      readonly number: number
      /** Turns that had run when it was let in: where a replay lets it in again. */
      readonly turn: number
      readonly source: string
      readonly value: Plain
    }
  /** A VM exit, as the VMCS tells it; `gpa`, `width` and `value` where the exit has an address, an operand. */
  | {
      readonly name: 'exit'
      readonly reason: number
      readonly qualification: number
      readonly rip: number
      readonly gpa: number | null
      readonly width: number | null
      readonly value: number | null
    }
  /** What an exit came to: an access to a device's register; `device` is null where nothing answered. */
  | {
      readonly name: 'register'
      readonly space: 'memory' | 'port'
      readonly device: string | null
      readonly write: boolean
      readonly at: number
      readonly width: number
      readonly value: number
    }
  /** VM-entry interruption information (SDM vol. 3, 25.8.3); `again` when its first delivery exited. */
  | { readonly name: 'inject'; readonly info: number; readonly again: boolean }
  /** An interrupt that the processor delivered without an exit. */
  | { readonly name: 'deliver'; readonly vector: number }
  /** A guest in HLT goes on. */
  | { readonly name: 'wake' }

/** A sink. `on` is read before an event is made, so that tracing off costs one comparison. */
export interface Trace {
  readonly on: boolean
  emit(event: TraceEvent): void
}

export const NO_TRACE: Trace = { on: false, emit() {} }
