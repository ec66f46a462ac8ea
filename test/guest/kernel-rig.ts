import { expect } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DispatchRoutine, StartIoRoutine } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { IO_STATUS_BLOCK } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import { Machine, type MachineOptions } from './machine.ts'

export const TAG = poolTag('Test')

export interface LayerOptions {
  readonly name?: string
  readonly flags?: number
  readonly dispatch?: { readonly [major: number]: DispatchRoutine }
  readonly startIo?: StartIoRoutine
  readonly exclusive?: boolean
}

/** A machine with drivers made of functions, and a record of what was allocated before. */
export class Rig {
  readonly machine: Machine
  readonly kernel: Kernel
  readonly #blocks: number
  readonly #layers: DeviceObject[]
  readonly #rooms: number[]

  constructor(options: MachineOptions = {}) {
    this.machine = new Machine({ ramBytes: 2 * 1024 * 1024, ...options })
    this.kernel = this.machine.kernel
    this.machine.drain()
    this.#blocks = this.kernel.parts.pool.count
    this.#layers = []
    this.#rooms = []
  }

  /** A device of a driver of its own, attached on top of `below`. Opening, cleaning up and closing succeed. */
  layer(options: LayerOptions = {}, below: DeviceObject | null = null): DeviceObject {
    const { kernel } = this
    const driver = kernel.parts.devices.createDriver(`\\Driver\\Test${this.#layers.length}`)
    if (driver === null) throw new Error('no memory')
    const dispatch: { readonly [major: number]: DispatchRoutine } = {
      [Major.CREATE]: (_device, irp) => finish(kernel, irp, NtStatus.SUCCESS),
      [Major.CLEANUP]: (_device, irp) => finish(kernel, irp, NtStatus.SUCCESS),
      [Major.CLOSE]: (_device, irp) => finish(kernel, irp, NtStatus.SUCCESS),
      ...options.dispatch,
    }
    for (const [major, routine] of Object.entries(dispatch)) {
      driver.setMajorFunction(Number(major) as Major, kernel.routine(routine))
    }
    if (options.startIo !== undefined) driver.startIo = kernel.routine(options.startIo)
    const device = kernel.ioCreateDevice(driver, {
      ...(options.name === undefined ? {} : { name: options.name }),
      exclusive: options.exclusive ?? false,
    })
    if (typeof device === 'number') throw new Error(`status ${device}`)
    device.flags = (device.flags | (options.flags ?? 0)) & ~DeviceFlag.DEVICE_INITIALIZING
    if (below !== null) device.extension = kernel.ioAttachDeviceToDeviceStack(device, below)
    this.#layers.push(device)
    return device
  }

  /** Zeroed pool memory that the rig frees. */
  room(lengthBytes: number): number {
    const at = this.kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, lengthBytes, TAG)
    if (at === 0) throw new Error('no memory')
    this.kernel.parts.memory.zero(at, lengthBytes)
    this.#rooms.push(at)
    return at
  }

  /** An IO_STATUS_BLOCK that says it was not written. */
  iosb(): number {
    const at = this.room(IO_STATUS_BLOCK.$size)
    this.kernel.parts.memory.window.putLe32(IO_STATUS_BLOCK.status, UNTOUCHED, at)
    this.kernel.parts.memory.window.putLe64(IO_STATUS_BLOCK.information, UNTOUCHED, at)
    return at
  }

  answer(iosb: number): { status: number; information: number } {
    const { window } = this.kernel.parts.memory
    return {
      status: window.le32(IO_STATUS_BLOCK.status, iosb),
      information: window.le64(IO_STATUS_BLOCK.information, iosb),
    }
  }

  /** Takes everything down and says that nothing is left. The machine can be used again. */
  end(): void {
    const { kernel } = this
    this.machine.drain()
    expect(kernel.bugCheck).toBeNull()
    for (const device of this.#layers.reverse()) {
      if (device.attachedTo !== 0) kernel.ioDetachDevice(kernel.parts.devices.deviceAt(device.attachedTo))
    }
    for (const device of this.#layers) {
      kernel.ioDeleteDevice(device)
      kernel.parts.devices.deleteDriver(device.driver)
    }
    for (const at of this.#rooms) kernel.exFreePool(at)
    this.#layers.length = 0
    this.#rooms.length = 0
    kernel.parts.irps.trim()
    kernel.parts.pool.check()
    expect(kernel.parts.irps.liveCount).toBe(0)
    expect(
      kernel.parts.pool
        .uses()
        .map((use) => `${use.tag} ${use.blocks}`)
        .sort(),
    ).toEqual(['Kern 1', 'Thre 3'])
    expect(kernel.parts.pool.count).toBe(this.#blocks)
    expect(kernel.parts.frames.lockedCount).toBe(0)
    expect(kernel.parts.space.systemPageCount).toBe(0)
    expect(kernel.parts.space.userBufferCount).toBe(0)
    expect(kernel.parts.files.count).toBe(0)
    expect(kernel.parts.events.count).toBe(0)
    expect(kernel.nt.handles.count).toBe(0)
    expect(kernel.parts.contexts.count).toBe(0)
    expect(kernel.parts.timers.count).toBe(0)
    expect(kernel.parts.work.outstanding).toBe(0)
    expect(kernel.keGetCurrentIrql()).toBe(0)
  }
}

/** What an IOSB holds until somebody writes it. */
export const UNTOUCHED = 0xfeed

/** Completes a request with a status. */
export function finish(kernel: Kernel, irp: Irp, status: NtStatus, information = 0): NtStatus {
  irp.status = status
  irp.information = information
  kernel.ioCompleteRequest(irp)
  return status
}

/** The statuses of each class that the matrices try. */
export const STATUS_CLASSES = {
  success: NtStatus.SUCCESS,
  information: 0x40000001 as NtStatus,
  warning: NtStatus.BUFFER_OVERFLOW,
  error: NtStatus.IO_DEVICE_ERROR,
} as const
export type StatusClass = keyof typeof STATUS_CLASSES
