import type { AccessWidth, RegisterDevice } from '../protocol/platform.ts'
import { Mmio } from '../protocol/virtio/mmio.ts'

/** What crossed into a device's registers. */
export interface RegisterCounts {
  /** Writes to QueueNotify. */
  readonly doorbells: number
  /** Reads of InterruptStatus and writes of InterruptACK: what an interrupt costs beside itself. */
  readonly interruptStatus: number
  /** All others: negotiation, reset, configuration. */
  readonly others: number
}

/** Stands before a virtio-mmio device on the bus and counts; on a processor with VT-x each would be an exit. */
export class RegisterCounter implements RegisterDevice {
  readonly #device: RegisterDevice
  #doorbells: number
  #interruptStatus: number
  #others: number

  constructor(device: RegisterDevice) {
    this.#device = device
    this.#doorbells = 0
    this.#interruptStatus = 0
    this.#others = 0
  }

  get counts(): RegisterCounts {
    return { doorbells: this.#doorbells, interruptStatus: this.#interruptStatus, others: this.#others }
  }

  read(offset: number, width: AccessWidth): number {
    if (offset === Mmio.InterruptStatus) this.#interruptStatus++
    else this.#others++
    return this.#device.read(offset, width)
  }

  write(offset: number, width: AccessWidth, value: number): void {
    if (offset === Mmio.QueueNotify) this.#doorbells++
    else if (offset === Mmio.InterruptACK) this.#interruptStatus++
    else this.#others++
    this.#device.write(offset, width, value)
  }
}
