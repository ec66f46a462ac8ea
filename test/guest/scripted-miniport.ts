import { Irql } from '../../guest/kernel/irql.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import type {
  AdapterControl,
  FindAdapterResult,
  Miniport,
  PortConfiguration,
  PortServices,
} from '../../guest/port/miniport.ts'
import type { Srb } from '../../guest/port/srb.ts'
import { SrbFunction, SrbStatus } from '../../guest/port/srb.ts'

/** How a miniport treats one request; the next one in its script, the last for ever. */
export type Play =
  /** Ends it inside StartIo. */
  | { readonly kind: 'at-once'; readonly status: number }
  /** Ends it after so many microseconds, in its DPC. */
  | { readonly kind: 'later'; readonly us: number; readonly status: number }
  /** StartIo answers FALSE. */
  | { readonly kind: 'refuse' }
  /** BuildIo ends it. */
  | { readonly kind: 'in-build'; readonly status: number }
  | { readonly kind: 'never' }
  /** Ends it twice. */
  | { readonly kind: 'twice' }

const BY_ITSELF: Play = { kind: 'at-once', status: SrbStatus.SUCCESS }

/** A miniport that does what the test wrote down, and writes down at which level it was called. */
export class ScriptedMiniport implements Miniport {
  readonly name = 'scripted'
  readonly script: Play[]
  readonly started: number[] = []
  /** Bytes each was asked for when it was started. */
  readonly asked: number[] = []
  readonly levels = new Map<string, Set<number>>()
  readonly out = new Set<Srb>()
  mostOut = 0
  readonly resets: string[] = []
  /** What a reset does to what is out. */
  onReset: 'end' | 'ignore' = 'end'
  depth = 8
  readonly #kernel: Kernel
  readonly #services: PortServices
  readonly #due: { readonly srb: Srb; readonly atUs: number; readonly status: number }[] = []

  constructor(kernel: Kernel, services: PortServices, script: Play[]) {
    this.#kernel = kernel
    this.#services = services
    this.script = script
  }

  #note(routine: string): void {
    const seen = this.levels.get(routine) ?? new Set()
    seen.add(this.#kernel.keGetCurrentIrql())
    this.levels.set(routine, seen)
  }

  findAdapter(configuration: PortConfiguration): FindAdapterResult {
    this.#note('findAdapter')
    configuration.srbExtensionBytes = 32
    return this.#services.getUncachedExtension(4096, 4096) === null ? 'error' : 'found'
  }

  initialize(): boolean {
    this.#note('initialize')
    return true
  }

  buildIo(srb: Srb): boolean {
    this.#note('buildIo')
    const play = this.script[0]
    if (srb.function !== SrbFunction.EXECUTE_SCSI || play?.kind !== 'in-build') return true
    this.script.shift()
    this.#end(srb, play.status)
    return false
  }

  startIo(srb: Srb): boolean {
    this.#note('startIo')
    if (srb.function !== SrbFunction.EXECUTE_SCSI) {
      this.resets.push(srb.function === SrbFunction.RESET_LOGICAL_UNIT ? 'unit' : 'device')
      if (this.onReset === 'end') this.#endAll()
      srb.srbStatus = this.onReset === 'end' ? SrbStatus.SUCCESS : SrbStatus.ERROR
      if (this.onReset === 'end') this.#services.requestComplete(srb)
      return true
    }
    const play = (this.script.length > 1 ? this.script.shift() : this.script[0]) ?? BY_ITSELF
    if (play.kind === 'refuse') return false
    this.started.push(srb.window.view.getUint8(srb.cdbBase + 1))
    this.asked.push(srb.dataTransferLength)
    this.out.add(srb)
    this.mostOut = Math.max(this.mostOut, this.out.size)
    switch (play.kind) {
      case 'at-once':
        this.#end(srb, play.status)
        break
      case 'later':
        this.#due.push({ srb, atUs: this.#services.now() + play.us, status: play.status })
        this.#arm()
        break
      case 'twice':
        this.#end(srb, SrbStatus.SUCCESS)
        this.#services.requestComplete(srb)
        break
      default:
        break
    }
    return true
  }

  #arm(): void {
    const next = Math.min(...this.#due.map(({ atUs }) => atUs))
    if (this.#due.length === 0) return
    this.#services.requestTimer(Math.max(1, next - this.#services.now()), () => {
      this.#note('timer')
      this.#services.issueDpc()
    })
  }

  #end(srb: Srb, status: number): void {
    this.out.delete(srb)
    if (status !== SrbStatus.SUCCESS) srb.dataTransferLength = 0
    srb.srbStatus = status
    this.#services.requestComplete(srb)
  }

  #endAll(): void {
    this.#due.length = 0
    for (const srb of [...this.out]) this.#end(srb, SrbStatus.BUS_RESET)
  }

  interrupt(): boolean {
    return false
  }

  dpc(): void {
    this.#note('dpc')
    const now = this.#services.now()
    for (const one of [...this.#due]) {
      if (one.atUs > now) continue
      this.#due.splice(this.#due.indexOf(one), 1)
      this.#end(one.srb, one.status)
    }
    this.#arm()
  }

  resetBus(): boolean {
    this.#note('resetBus')
    this.resets.push('bus')
    if (this.onReset === 'end') this.#endAll()
    return true
  }

  adapterControl(_control: AdapterControl): boolean {
    this.#endAll()
    return true
  }

  /** Ends one that it kept for good, long after. */
  endLate(): void {
    for (const srb of [...this.out]) this.#end(srb, SrbStatus.SUCCESS)
  }

  static readonly DISPATCH = Irql.DISPATCH
}
