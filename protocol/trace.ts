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
  | {
      readonly name: 'violation'
      readonly device: string
      readonly rule: string
      readonly queue: number | null
    }
  | { readonly name: 'arrival'; readonly number: number; readonly source: string; readonly value: Plain }

/** A sink. `on` is read before an event is made, so that tracing off costs one comparison. */
export interface Trace {
  readonly on: boolean
  emit(event: TraceEvent): void
}

export const NO_TRACE: Trace = { on: false, emit() {} }
