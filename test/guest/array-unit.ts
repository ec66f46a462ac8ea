import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { KTimer } from '../../guest/kernel/dispatcher-object.ts'
import type { KDpc } from '../../guest/kernel/dpc.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Irql } from '../../guest/kernel/irql.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { KDPC, KTIMER } from '../../guest/kernel/layout.ts'
import { MdlFlag } from '../../guest/kernel/mdl.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import { NO_ROUTINE } from '../../guest/kernel/routine.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'

/** What goes wrong with one command, or how long it takes. */
export interface Fault {
  readonly srbStatus?: number
  readonly scsiStatus?: number
  /** Key, additional code, qualifier. */
  readonly sense?: readonly [number, number, number]
  /** Bytes it says it moved, instead of all. */
  readonly moved?: number
  readonly delayUs?: number
  /** Kept for ever, unless it is called back or the unit vanishes. */
  readonly never?: boolean
  /** Done, and still answered as the status says. */
  readonly done?: boolean
}

export interface Seen {
  readonly function: number
  readonly cdb: readonly number[]
  readonly flags: number
  readonly lengthBytes: number
  readonly timeoutSeconds: number
  readonly pages: number
}

export interface UnitOptions {
  readonly sectors?: number
  readonly sectorBytes?: number
  readonly removable?: boolean
  readonly readOnly?: boolean
  readonly writeCache?: boolean
  readonly dpofua?: boolean
  readonly unmaps?: boolean
  readonly maximumTransferLength?: number
  readonly maximumPhysicalPages?: number
  readonly physicalExponent?: number
  /** What READ CAPACITY (10) says, instead. */
  readonly capacity10?: readonly number[]
  readonly capacity16?: readonly number[] | null
}

const TAG = poolTag('Unit')
const be32 = (value: number) => [(value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]

/** A logical unit's PDO over an array: every offset and code in it is a literal of SPC, SBC and srb.h. */
export class ArrayUnit {
  readonly kernel: Kernel
  readonly options: UnitOptions
  bytes: Uint8Array
  readonly sectorBytes: number
  readonly seen: Seen[] = []
  readonly minors: number[] = []
  /** Asked for each command: what goes wrong with it. */
  fault: (seen: Seen) => Fault | null = () => null
  pdo: DeviceObject | null = null
  driver: DriverObject | null = null
  claimed = false
  /** Does not hear that something is called back. */
  deaf = false
  gone = false
  /** Refuses START. */
  startStatus: NtStatus = NtStatus.SUCCESS
  /** Commands it has. */
  held = 0
  heldMost = 0
  flushes = 0
  readonly wrong: string[] = []
  #timer: KTimer | null = null
  #dpc: KDpc | null = null
  #room = 0
  readonly #waiting: { readonly irp: Irp; readonly dueUs: number; readonly fault: Fault }[] = []
  readonly #cancel

  constructor(kernel: Kernel, options: UnitOptions = {}) {
    this.kernel = kernel
    this.options = options
    this.sectorBytes = options.sectorBytes ?? 512
    this.bytes = new Uint8Array((options.sectors ?? 256) * this.sectorBytes)
    this.#cancel = kernel.routine((_device: unknown, irp: Irp) => this.#cancelled(irp))
  }

  *load(service = 'unit'): Waiting<void> {
    const { kernel } = this
    this.#room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KTIMER.$size + KDPC.$size, TAG)
    this.#timer = kernel.keInitializeTimer(this.#room)
    this.#dpc = kernel.keInitializeDpc(
      this.#room + KTIMER.$size,
      kernel.routine(() => this.#due()),
    )
    const loaded = yield* kernel.ioLoadDriver(service, (driver: DriverObject) => {
      const device = kernel.ioCreateDevice(driver)
      if (typeof device === 'number') return device
      device.flags |= DeviceFlag.DIRECT_IO
      this.pdo = device
      driver.unload = kernel.routine(() => kernel.ioDeleteDevice(device))
      driver.setMajorFunction(
        Major.INTERNAL_DEVICE_CONTROL,
        kernel.routine((_device: DeviceObject, irp: Irp) => this.#srb(irp)),
      )
      driver.setMajorFunction(
        Major.DEVICE_CONTROL,
        kernel.routine((_device: DeviceObject, irp: Irp) => this.#control(irp)),
      )
      driver.setMajorFunction(
        Major.PNP,
        kernel.routine((_device: DeviceObject, irp: Irp) => {
          this.minors.push(irp.current.minor)
          return this.#complete(irp, irp.current.minor === 0 ? this.startStatus : NtStatus.SUCCESS)
        }),
      )
      return NtStatus.SUCCESS
    })
    if (typeof loaded === 'number') throw new Error('not loaded')
    this.driver = loaded
  }

  *unload(): Waiting<void> {
    if (this.#timer !== null) this.kernel.keCancelTimer(this.#timer)
    if (this.driver !== null) yield* this.kernel.ioUnloadDriver(this.driver)
    this.kernel.exFreePool(this.#room)
  }

  #complete(irp: Irp, status: NtStatus, information = 0): NtStatus {
    irp.status = status
    irp.information = information
    this.kernel.ioCompleteRequest(irp)
    return status
  }

  /** The adapter descriptor, and a device descriptor of four bytes more than its fixed part. */
  #control(irp: Irp): NtStatus {
    const { window } = this.kernel.parts.memory
    const { view } = window
    if (irp.current.ioControlCode !== 0x2d1400) return this.#complete(irp, NtStatus.INVALID_DEVICE_REQUEST)
    const id = view.getUint32(irp.systemBuffer, true)
    const size = id === 1 ? 32 : 44
    const answer = new DataView(new ArrayBuffer(size))
    answer.setUint32(0, id === 1 ? 32 : 40, true)
    answer.setUint32(4, size, true)
    if (id === 1) {
      answer.setUint32(8, this.options.maximumTransferLength ?? 0x10000, true)
      answer.setUint32(12, this.options.maximumPhysicalPages ?? 17, true)
    }
    const bytes = new Uint8Array(answer.buffer).subarray(0, irp.current.outputBufferLengthBytes)
    this.kernel.parts.memory.bytes.set(bytes, irp.systemBuffer)
    return this.#complete(irp, NtStatus.SUCCESS, bytes.length)
  }

  #srb(irp: Irp): NtStatus {
    const { view } = this.kernel.parts.memory.window
    const srb = irp.current.srb
    const operation = view.getUint8(srb + 2)
    const cdbLength = view.getUint8(srb + 10)
    const seen: Seen = {
      function: operation,
      cdb: Array.from({ length: cdbLength }, (_, index) => view.getUint8(srb + 72 + index)),
      flags: view.getUint32(srb + 12, true),
      lengthBytes: view.getUint32(srb + 16, true),
      timeoutSeconds: view.getUint32(srb + 20, true),
      pages: this.#pages(irp),
    }
    this.seen.push(seen)
    if (view.getUint16(srb, true) !== 88) this.wrong.push('length of the SRB')
    if (this.gone) return this.#answer(irp, { srbStatus: 8, moved: 0 })
    const fault = this.fault(seen) ?? {}
    this.held++
    this.heldMost = Math.max(this.heldMost, this.held)
    const { delayUs, never } = fault
    if (delayUs === undefined && never !== true) {
      this.held--
      return this.#perform(irp, fault)
    }
    this.kernel.ioMarkIrpPending(irp)
    this.#waiting.push({
      irp,
      dueUs: never === true ? Infinity : this.kernel.keQueryTimeUs() + (delayUs ?? 0),
      fault,
    })
    if (!this.deaf) this.kernel.ioSetCancelRoutine(irp, this.#cancel)
    if (irp.cancel && !this.deaf && this.kernel.ioSetCancelRoutine(irp, NO_ROUTINE) !== 0) {
      this.#drop(irp)
      this.#answer(irp, { srbStatus: 2, moved: 0 })
    }
    this.#arm()
    return NtStatus.PENDING
  }

  #pages(irp: Irp): number {
    const { window } = this.kernel.parts.memory
    const srb = irp.current.srb
    const length = window.view.getUint32(srb + 16, true)
    const at = Number(window.view.getBigUint64(srb + 24, true))
    return length === 0 ? 0 : Math.ceil(((at % 4096) + length) / 4096)
  }

  #arm(): void {
    const next = Math.min(...this.#waiting.map((one) => one.dueUs))
    if (this.#timer === null || !(next < Infinity)) return
    this.kernel.keSetTimer(this.#timer, Math.max(0, next - this.kernel.keQueryTimeUs()), 0, this.#dpc)
  }

  #due(): void {
    const now = this.kernel.keQueryTimeUs()
    for (;;) {
      const at = this.#waiting.findIndex((one) => one.dueUs <= now)
      const [one] = at < 0 ? [] : this.#waiting.splice(at, 1)
      if (one === undefined) break
      this.held--
      if (this.deaf || this.kernel.ioSetCancelRoutine(one.irp, NO_ROUTINE) !== 0)
        this.#perform(one.irp, one.fault)
    }
    this.#arm()
  }

  #drop(irp: Irp): boolean {
    const at = this.#waiting.findIndex((one) => one.irp === irp)
    if (at >= 0) this.#waiting.splice(at, 1)
    if (at >= 0) this.held--
    return at >= 0
  }

  #cancelled(irp: Irp): void {
    const had = this.#drop(irp)
    this.kernel.ioReleaseCancelSpinLock(irp.cancelIrql as Irql)
    if (had) this.#answer(irp, { srbStatus: 2, moved: 0 })
  }

  /** Pulled out: what it holds ends, what comes is turned away. */
  vanish(): void {
    this.gone = true
    const before = this.kernel.keRaiseIrql(2)
    for (const { irp } of this.#waiting.splice(0)) {
      this.held--
      if (this.kernel.ioSetCancelRoutine(irp, NO_ROUTINE) !== 0) this.#answer(irp, { srbStatus: 8, moved: 0 })
    }
    this.kernel.keLowerIrql(before)
  }

  #answer(irp: Irp, fault: Fault): NtStatus {
    const { view } = this.kernel.parts.memory.window
    const srb = irp.current.srb
    let status = fault.srbStatus ?? 1
    view.setUint8(srb + 4, fault.scsiStatus ?? 0)
    if (fault.moved !== undefined) view.setUint32(srb + 16, fault.moved, true)
    if (fault.sense !== undefined) {
      const sense = Number(view.getBigUint64(srb + 32, true))
      const [key, asc, ascq] = fault.sense
      view.setUint8(sense, 0x70)
      view.setUint8(sense + 2, key)
      view.setUint8(sense + 7, 10)
      view.setUint8(sense + 12, asc)
      view.setUint8(sense + 13, ascq)
      status |= 0x80
    }
    view.setUint8(srb + 3, status)
    return this.#complete(
      irp,
      (status & 0x3f) === 1
        ? NtStatus.SUCCESS
        : (status & 0x3f) === 2
          ? NtStatus.CANCELLED
          : NtStatus.IO_DEVICE_ERROR,
    )
  }

  #perform(irp: Irp, fault: Fault): NtStatus {
    const fails = fault.srbStatus !== undefined && fault.srbStatus !== 1
    if (fails && fault.done !== true) return this.#answer(irp, { moved: 0, ...fault })
    const outcome = this.#execute(irp)
    return this.#answer(irp, { ...outcome, ...fault })
  }

  #execute(irp: Irp): Fault {
    const { view } = this.kernel.parts.memory.window
    const srb = irp.current.srb
    switch (view.getUint8(srb + 2)) {
      case 0:
        return this.#scsi(irp)
      case 1:
        if (this.claimed) return { srbStatus: 5 }
        this.claimed = true
        return {}
      case 6:
        this.claimed = false
        return {}
      default:
        return {}
    }
  }

  #scsi(irp: Irp): Fault {
    const { view } = this.kernel.parts.memory.window
    const cdb = irp.current.srb + 72
    const operation = view.getUint8(cdb)
    const u32 = (at: number) => view.getUint32(cdb + at)
    const illegal = (asc: number): Fault => ({ srbStatus: 4, scsiStatus: 2, sense: [5, asc, 0], moved: 0 })
    const sectors = this.bytes.length / this.sectorBytes
    switch (operation) {
      case 0x00:
      case 0x2f:
        return {}
      case 0x12:
        return this.#inquiry(irp, view.getUint8(cdb + 1), view.getUint8(cdb + 2))
      case 0x1a: {
        const specific =
          (this.options.readOnly === true ? 0x80 : 0) | (this.options.dpofua === false ? 0 : 0x10)
        const cache = this.options.writeCache === false ? 0 : 4
        const page = [0x08, 18, cache, ...Array(17).fill(0)]
        return this.#give(irp, [3 + page.length, 0, specific, 0, ...page])
      }
      case 0x25:
        return this.#give(irp, this.options.capacity10 ?? [...be32(sectors - 1), ...be32(this.sectorBytes)])
      case 0x9e: {
        const told = this.options.capacity16
        if (told === null) return illegal(0x20)
        const exponent = this.options.physicalExponent ?? 0
        const tail = [0, exponent, this.options.unmaps === true ? 0x80 : 0, ...Array(17).fill(0)]
        return this.#give(irp, told ?? [0, 0, 0, 0, ...be32(sectors - 1), ...be32(this.sectorBytes), ...tail])
      }
      case 0x35:
        this.flushes++
        return {}
      case 0x28:
      case 0x2a:
        return this.#move(irp, operation === 0x2a, u32(2), view.getUint16(cdb + 7))
      case 0x88:
      case 0x8a:
        return this.#move(irp, operation === 0x8a, u32(2) * 2 ** 32 + u32(6), u32(10))
      case 0x42:
        return this.options.unmaps === true ? this.#unmap(irp) : illegal(0x20)
      default:
        return illegal(0x20)
    }
  }

  #inquiry(irp: Irp, evpd: number, page: number): Fault {
    const text = (value: string, length: number) => [...value.padEnd(length)].map((one) => one.charCodeAt(0))
    if ((evpd & 1) === 0) {
      const removable = this.options.removable === true ? 0x80 : 0
      return this.#give(irp, [
        0,
        removable,
        6,
        2,
        31,
        0,
        0,
        2,
        ...text('Array', 8),
        ...text('Unit', 16),
        ...text('1', 4),
      ])
    }
    if (this.options.unmaps === true && page === 0xb2) return this.#give(irp, [0, 0xb2, 0, 4, 0, 0x80, 2, 0])
    if (this.options.unmaps === true && page === 0xb0) {
      const limits = [0, 0xb0, 0, 60, ...Array(16).fill(0), ...be32(8), ...be32(3), ...Array(36).fill(0)]
      return this.#give(irp, limits)
    }
    return { srbStatus: 4, scsiStatus: 2, sense: [5, 0x24, 0], moved: 0 }
  }

  /** Into the caller's buffer, as much as it has room for; less than that is told as an overrun. */
  #give(irp: Irp, bytes: readonly number[]): Fault {
    const { view } = this.kernel.parts.memory.window
    const room = view.getUint32(irp.current.srb + 16, true)
    const here = Uint8Array.from(bytes.slice(0, room))
    this.#copy(irp, here, false)
    return here.length < room ? { srbStatus: 0x12, moved: here.length } : { moved: here.length }
  }

  #move(irp: Irp, write: boolean, lba: number, blocks: number): Fault {
    const { view } = this.kernel.parts.memory.window
    const { sectorBytes } = this
    const length = view.getUint32(irp.current.srb + 16, true)
    if (length !== blocks * sectorBytes) this.wrong.push('blocks and bytes differ')
    if ((lba + blocks) * sectorBytes > this.bytes.length) {
      return { srbStatus: 4, scsiStatus: 2, sense: [5, 0x21, 0], moved: 0 }
    }
    if (write && this.options.readOnly === true)
      return { srbStatus: 4, scsiStatus: 2, sense: [7, 0x27, 0], moved: 0 }
    this.#copy(irp, this.bytes.subarray(lba * sectorBytes, (lba + blocks) * sectorBytes), write)
    return { moved: length }
  }

  #unmap(irp: Irp): Fault {
    const { view } = this.kernel.parts.memory.window
    const list = new Uint8Array(view.getUint32(irp.current.srb + 16, true))
    this.#copy(irp, list, true)
    const said = new DataView(list.buffer)
    for (let at = 8; at < 8 + said.getUint16(2); at += 16) {
      const first = said.getUint32(at + 4)
      this.bytes.fill(0, first * this.sectorBytes, (first + said.getUint32(at + 8)) * this.sectorBytes)
    }
    return {}
  }

  /** Between the request's buffer, page by page through its MDL, and bytes. */
  #copy(irp: Irp, bytes: Uint8Array, out: boolean): void {
    const { kernel } = this
    const ram = kernel.parts.memory.bytes
    const at = Number(kernel.parts.memory.window.view.getBigUint64(irp.current.srb + 24, true))
    if (irp.mdlAddress === 0) {
      this.wrong.push('data without an MDL')
      return
    }
    const mdl = kernel.mdlAt(irp.mdlAddress)
    if (!mdl.has(MdlFlag.PAGES_LOCKED | MdlFlag.SOURCE_IS_NONPAGED_POOL)) this.wrong.push('pages not locked')
    const offset = at - mdl.virtualAddress
    if (!(offset >= 0 && offset + bytes.length <= mdl.byteCount)) {
      this.wrong.push('data outside the MDL')
      return
    }
    for (let done = 0; done < bytes.length; ) {
      const run = mdl.runBytes(offset + done, bytes.length - done)
      const from = mdl.physical(offset + done)
      if (out) bytes.set(ram.subarray(from, from + run), done)
      else ram.set(bytes.subarray(done, done + run), from)
      done += run
    }
  }
}
