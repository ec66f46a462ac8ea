import type { Trace } from '../protocol/trace.ts'
import type { BusRange } from './bus.ts'
import type { DecodedAccess, Processor } from './processor.ts'
import { ExitReason, INFO_VALID } from './vtx/control.ts'
import { Field } from './vtx/field.ts'

const BASIC = 0xffff

/** Tells a trace what crosses between guest and hypervisor. Asked only while the trace is on. */
export class ExitTracer {
  readonly #trace: Trace
  readonly #processor: () => Processor

  constructor(trace: Trace, processor: () => Processor) {
    this.#trace = trace
    this.#processor = processor
  }

  exit(reason: number): void {
    const processor = this.#processor()
    const basic = reason & BASIC
    const isEpt = basic === ExitReason.EPT_VIOLATION || basic === ExitReason.EPT_MISCONFIGURATION
    const decoded = isEpt || basic === ExitReason.APIC_ACCESS ? processor.decoded : null
    this.#trace.emit({
      name: 'exit',
      reason,
      qualification: processor.vmread(Field.exitQualification),
      rip: processor.vmread(Field.guestRip),
      gpa: isEpt ? processor.vmread(Field.guestPhysicalAddress) : null,
      width: decoded?.width ?? null,
      value: decoded?.kind === 'store' ? decoded.value : null,
    })
  }

  register(range: BusRange | null, { kind, at, width, value }: DecodedAccess): void {
    const device = range?.name ?? null
    this.#trace.emit({ name: 'register', space: 'memory', device, write: kind === 'store', at, width, value })
  }

  port(range: BusRange | null, write: boolean, at: number, width: number, value: number): void {
    this.#trace.emit({
      name: 'register',
      space: 'port',
      device: range?.name ?? null,
      write,
      at,
      width,
      value,
    })
  }

  injected(info: number, again: boolean): void {
    if (this.#trace.on) this.#trace.emit({ name: 'inject', info: info - INFO_VALID, again })
  }

  delivered(vector: number): void {
    if (this.#trace.on) this.#trace.emit({ name: 'deliver', vector })
  }

  woke(): void {
    if (this.#trace.on) this.#trace.emit({ name: 'wake' })
  }
}
