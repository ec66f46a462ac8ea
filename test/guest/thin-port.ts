import type {
  Miniport,
  PortConfiguration,
  PortServices,
  ScatterGatherList,
} from '../../guest/port/miniport.ts'
import { ScsiRequestBlock, Srb, SrbFlag, SrbFunction } from '../../guest/port/srb.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import type { Gpa } from '../../protocol/memory.ts'
import { type GuestMemory, gpa } from '../../protocol/memory.ts'
import type { Clock, RegisterDevice, Timer } from '../../protocol/platform.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'

export const REGISTERS = gpa(0xfeb0_0000)
const SENSE_BYTES = 18

/** What a command looks like to whoever sends one. */
export interface Ask {
  readonly cdb: readonly number[]
  /** Scattered pieces; their lengths add up to the transfer. */
  readonly pieces?: readonly { readonly at: number; readonly lengthBytes: number }[]
  readonly write?: boolean
  readonly function?: number
  /** Says a transfer length of its own. */
  readonly lengthBytes?: number
  readonly path?: number
  readonly target?: number
  readonly lun?: number
}

export interface Answer {
  readonly srbStatus: number
  readonly scsiStatus: number
  readonly movedBytes: number
  readonly sense: Uint8Array
}

/** A request on its way; `answer` is null until it came back. */
export class Asked {
  readonly srb: Srb
  readonly ask: Ask
  answer: Answer | null
  completions: number
  leftOnLoan: boolean

  constructor(srb: Srb, ask: Ask) {
    this.srb = srb
    this.ask = ask
    this.answer = null
    this.completions = 0
    this.leftOnLoan = false
  }
}

/** What lies below: memory, a clock, and one device with its registers and its line. */
export interface PortMachine {
  readonly memory: GuestMemory
  readonly clock: Clock
  readonly line: { onRise: (() => void) | null }
  readonly transport: RegisterDevice
}

/**
 * The least port driver a miniport can live under: hands requests straight through, no queue, no retries. An
 * independent reading of the contract, so that a miniport is tested apart from the port driver.
 */
export class ThinPort implements PortServices {
  readonly memory
  readonly miniport: Miniport
  readonly configuration: PortConfiguration
  readonly violations: Violation[] = []
  readonly log: string[] = []
  readonly asked = new Map<Srb, Asked>()
  capacityChanges = 0
  depth = 0
  dpcs = 0
  readonly #rig: PortMachine
  #top: number
  #timer: Timer | null = null

  constructor(rig: PortMachine, version: VirtioVersion = '1.3', top = 0x1_0000) {
    this.#rig = rig
    this.memory = rig.memory
    this.#top = top
    this.miniport = blkMiniport(version)(this)
    this.configuration = {
      resources: [{ kind: 'memory', start: REGISTERS, lengthBytes: 0x200 }],
      maximumTransferLength: 0,
      numberOfPhysicalBreaks: 0,
      numberOfBuses: 0,
      maximumNumberOfTargets: 0,
      maximumNumberOfLogicalUnits: 0,
      alignmentMask: 0,
      cachesData: false,
      srbExtensionBytes: 0,
    }
    rig.line.onRise = () => this.#interrupt()
  }

  /** FindAdapter and HwInitialize; what the former said. */
  bringUp(): string {
    const found = this.miniport.findAdapter(this.configuration)
    if (found === 'found') this.miniport.initialize()
    return found
  }

  send(ask: Ask): Asked {
    const at = this.alloc(ScsiRequestBlock.$size + SENSE_BYTES + this.configuration.srbExtensionBytes, 16)
    const srb = new Srb()
    srb.point(this.memory, at)
    srb.clear()
    srb.function = ask.function ?? SrbFunction.EXECUTE_SCSI
    srb.pathId = ask.path ?? 0
    srb.targetId = ask.target ?? 0
    srb.lun = ask.lun ?? 0
    const total = (ask.pieces ?? []).reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    srb.dataTransferLength = ask.lengthBytes ?? total
    if (total > 0) srb.srbFlags = ask.write === true ? SrbFlag.DATA_OUT : SrbFlag.DATA_IN
    srb.dataBuffer = gpa(ask.pieces?.[0]?.at ?? 0)
    srb.senseInfoBuffer = gpa(at + ScsiRequestBlock.$size)
    srb.senseInfoBufferLength = SENSE_BYTES
    srb.srbExtension = gpa(at + ScsiRequestBlock.$size + SENSE_BYTES)
    srb.cdbLength = ask.cdb.length
    for (const [index, byte] of ask.cdb.entries()) srb.window.view.setUint8(srb.cdbBase + index, byte)
    const asked = new Asked(srb, ask)
    this.asked.set(srb, asked)
    if (this.miniport.buildIo(srb) && !this.miniport.startIo(srb)) throw new Error('the ring is full')
    return asked
  }

  alloc(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#top / alignment) * alignment
    this.#top = at + lengthBytes
    return gpa(at)
  }

  #interrupt(): void {
    if (this.miniport.interrupt()) return
    throw new Error('a line rose for no cause')
  }

  now(): number {
    return this.#rig.clock.now()
  }
  getDeviceBase(start: Gpa): Gpa | null {
    return start === REGISTERS ? start : null
  }
  getUncachedExtension(lengthBytes: number, alignment: number): Gpa {
    return this.alloc(lengthBytes, alignment)
  }
  readRegister(at: Gpa, width: 1 | 2 | 4 | 8): number {
    return this.#rig.transport.read(at - REGISTERS, width)
  }
  writeRegister(at: Gpa, width: 1 | 2 | 4 | 8, value: number): void {
    this.#rig.transport.write(at - REGISTERS, width, value)
  }
  getScatterGatherList(srb: Srb): ScatterGatherList | null {
    const pieces = this.asked.get(srb)?.ask.pieces
    if (pieces === undefined) return null
    return {
      count: pieces.length,
      addresses: pieces.map(({ at }) => gpa(at)),
      lengths: pieces.map(({ lengthBytes }) => lengthBytes),
    }
  }
  getSystemAddress(srb: Srb): Gpa | null {
    return srb.dataBuffer === 0 ? null : srb.dataBuffer
  }
  requestComplete(srb: Srb): void {
    const asked = this.asked.get(srb)
    if (asked === undefined) throw new Error('a request ended that was never sent')
    asked.completions++
    const sense = new Uint8Array(SENSE_BYTES)
    this.memory.window(srb.senseInfoBuffer, SENSE_BYTES, 1)?.copyOut(0, sense)
    asked.answer = {
      srbStatus: srb.srbStatus,
      scsiStatus: srb.scsiStatus,
      movedBytes: srb.dataTransferLength,
      sense,
    }
  }
  leaveOnLoan(srb: Srb): void {
    const asked = this.asked.get(srb)
    if (asked !== undefined) asked.leftOnLoan = true
  }
  requestTimer(us: number, work: () => void): void {
    this.#timer?.cancel()
    this.#timer = us === 0 ? null : this.#rig.clock.after(us, work)
  }
  issueDpc(): void {
    this.dpcs++
    this.#rig.clock.defer(() => this.miniport.dpc())
  }
  setDeviceQueueDepth(_path: number, _target: number, _lun: number, depth: number): void {
    this.depth = depth
  }
  pause(): void {}
  resume(): void {}
  busChangeDetected(): void {}
  capacityChanged(): void {
    this.capacityChanges++
  }
  logError(what: string): void {
    this.log.push(what)
  }
  violated(violation: Violation): void {
    this.violations.push(violation)
  }
}
