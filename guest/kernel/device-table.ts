import { BugCode, keBugCheckEx } from './bug-check.ts'
import { DeviceObject } from './device-object.ts'
import { initializeHeader } from './dispatcher-object.ts'
import type { DispatchRoutine } from './driver-object.ts'
import { DriverObject } from './driver-object.ts'
import type { Hal } from './hal.ts'
import {
  DEVICE_OBJECT,
  DEVOBJ_EXTENSION,
  DeviceExtensionFlag,
  DeviceFlag,
  DRIVER_EXTENSION,
  DRIVER_OBJECT,
  IoType,
  MAJOR_COUNT,
  type Major,
} from './io-layout.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { DispatcherType, KDEVICE_QUEUE, KEVENT } from './layout.ts'
import { initializeList } from './list.ts'
import type { ObjectNames } from './object-names.ts'
import { PnpFatal } from './pnp/pnp-fatal.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Routine } from './routine.ts'

const DEVICE_TAG = poolTag('Devi')
const DRIVER_TAG = poolTag('Driv')

export interface DeviceOptions {
  /** Bytes of its device extension, zeroed. */
  readonly extensionBytes?: number
  /** The driver's private state as an object. */
  readonly extension?: unknown
  readonly type?: number
  readonly characteristics?: number
  readonly exclusive?: boolean
  /** Full name in the object manager (`\Device\Harddisk0\DR0`); `IoManager` enters it. */
  readonly name?: string
}

/** Driver and device objects, and the device stacks they form. */
export class DeviceTable {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #names: ObjectNames
  readonly #invalidRequest: Routine<DispatchRoutine>
  readonly #drivers: Map<number, DriverObject>
  readonly #devices: Map<number, DeviceObject>

  /** @param invalidRequest what an entry of the dispatch table is before the driver sets it. */
  constructor(
    memory: KernelMemory,
    hal: Hal,
    pool: Pool,
    names: ObjectNames,
    invalidRequest: Routine<DispatchRoutine>,
  ) {
    this.#memory = memory
    this.#hal = hal
    this.#pool = pool
    this.#names = names
    this.#invalidRequest = invalidRequest
    this.#drivers = new Map()
    this.#devices = new Map()
  }

  get devices(): Iterable<DeviceObject> {
    return this.#devices.values()
  }
  get drivers(): Iterable<DriverObject> {
    return this.#drivers.values()
  }
  get deviceCount(): number {
    return this.#devices.size
  }

  /** The device whose record is at `at`; a wild address is a page fault. */
  deviceAt(at: number): DeviceObject {
    return this.#devices.get(at) ?? keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at)
  }
  /** The same, with null for address 0. */
  deviceOrNull(at: number): DeviceObject | null {
    return at === 0 ? null : this.deviceAt(at)
  }
  /** The device at `at`, if there is one: for lists that may hold anything. */
  find(at: number): DeviceObject | null {
    return this.#devices.get(at) ?? null
  }
  driverAt(at: number): DriverObject | null {
    return this.#drivers.get(at) ?? null
  }

  /** Every entry of its dispatch table completes with INVALID_DEVICE_REQUEST until the driver sets it. */
  createDriver(name: string): DriverObject | null {
    const at = this.#allocate(DRIVER_OBJECT.$size + DRIVER_EXTENSION.$size, DRIVER_TAG)
    if (at === 0) return null
    const { window } = this.#memory
    const driver = new DriverObject(this.#memory, at)
    driver.name = name
    window.putLe16(DRIVER_OBJECT.type, IoType.DRIVER, at)
    window.putLe16(DRIVER_OBJECT.size, DRIVER_OBJECT.$size, at)
    window.putLe64(DRIVER_OBJECT.driverExtension, at + DRIVER_OBJECT.$size, at)
    window.putLe64(DRIVER_EXTENSION.driverObject, at, at + DRIVER_OBJECT.$size)
    for (let major = 0; major < MAJOR_COUNT; major++)
      driver.setMajorFunction(major as Major, this.#invalidRequest)
    this.#drivers.set(at, driver)
    return driver
  }

  deleteDriver(driver: DriverObject): void {
    this.#drivers.delete(driver.at)
    this.#pool.free(driver.at, this.#hal.irql)
  }

  /** The device, initialising; or null when memory is short. */
  createDevice(driver: DriverObject, options: DeviceOptions): DeviceObject | null {
    const extensionBytes = Math.ceil((options.extensionBytes ?? 0) / 16) * 16
    const total = DEVICE_OBJECT.$size + extensionBytes + DEVOBJ_EXTENSION.$size
    const at = this.#allocate(total, DEVICE_TAG)
    if (at === 0) return null
    const { window } = this.#memory
    const objectExtension = at + DEVICE_OBJECT.$size + extensionBytes
    const device = new DeviceObject(this.#memory, at, driver)
    device.extension = options.extension ?? null
    window.putLe16(DEVICE_OBJECT.type, IoType.DEVICE, at)
    window.putLe16(DEVICE_OBJECT.size, DEVICE_OBJECT.$size + (options.extensionBytes ?? 0), at)
    window.putLe64(DEVICE_OBJECT.driverObject, driver.at, at)
    window.putLe64(DEVICE_OBJECT.deviceObjectExtension, objectExtension, at)
    if (extensionBytes > 0) window.putLe64(DEVICE_OBJECT.deviceExtension, at + DEVICE_OBJECT.$size, at)
    window.putLe16(DEVOBJ_EXTENSION.type, IoType.DEVICE_OBJECT_EXTENSION, objectExtension)
    window.putLe64(DEVOBJ_EXTENSION.deviceObject, at, objectExtension)
    device.flags = DeviceFlag.DEVICE_INITIALIZING | (options.exclusive === true ? DeviceFlag.EXCLUSIVE : 0)
    device.characteristics = options.characteristics ?? 0
    device.deviceType = options.type ?? 0x22
    device.stackSize = 1
    initializeHeader(
      this.#memory,
      at + DEVICE_OBJECT.deviceLock,
      DispatcherType.SYNCHRONIZATION_EVENT,
      KEVENT.$size,
      1,
    )
    window.putLe16(KDEVICE_QUEUE.type, 20, device.deviceQueue)
    window.putLe16(KDEVICE_QUEUE.size, KDEVICE_QUEUE.$size, device.deviceQueue)
    initializeList(this.#memory, device.deviceQueue + KDEVICE_QUEUE.deviceListHead)
    device.nextDevice = driver.deviceObject
    driver.deviceObject = at
    this.#devices.set(at, device)
    return device
  }

  #allocate(lengthBytes: number, tag: number): number {
    const at = this.#pool.allocate(PoolType.NON_PAGED, lengthBytes, tag, this.#hal.irql)
    if (at !== 0) this.#memory.zero(at, lengthBytes)
    return at
  }

  /** IoDeleteDevice: the memory stays while somebody refers to the device or is attached to it. Answers whether it is gone. */
  deleteDevice(device: DeviceObject): boolean {
    device.deleted = true
    if (device.name !== null) this.#names.remove(device.name)
    device.extensionFlags |= DeviceExtensionFlag.DELETE_PENDING
    this.#unlink(device)
    return this.#collect(device)
  }

  #unlink(device: DeviceObject): void {
    const { driver } = device
    if (driver.deviceObject === device.at) {
      driver.deviceObject = device.nextDevice
      return
    }
    let at = driver.deviceObject
    while (at !== 0) {
      const before = this.deviceAt(at)
      if (before.nextDevice === device.at) {
        before.nextDevice = device.nextDevice
        return
      }
      at = before.nextDevice
    }
  }

  reference(device: DeviceObject): void {
    device.referenceCount++
  }

  dereference(device: DeviceObject): void {
    if (device.referenceCount <= 0) keBugCheckEx(BugCode.REFERENCE_BY_POINTER, 0, device.at, 1, 0)
    device.referenceCount--
    if (device.deleted) this.#collect(device)
  }

  #collect(device: DeviceObject): boolean {
    // Who stands on it detaches after its own request has come back from below.
    if (device.referenceCount > 0 || device.attachedDevice !== 0) return false
    // Its bus driver reported it without taking a reference for it.
    if (device.deviceNode !== 0) {
      keBugCheckEx(BugCode.PNP_DETECTED_FATAL_ERROR, PnpFatal.FREED_PDO, device.at)
    }
    this.#devices.delete(device.at)
    this.#pool.free(device.at, this.#hal.irql)
    return true
  }

  /**
   * IoAttachDeviceToDeviceStack: attaches to the top of the target's stack and answers the device that was the
   * top, the one to send requests to; null when that device is being removed.
   */
  attach(source: DeviceObject, target: DeviceObject): DeviceObject | null {
    const top = this.attached(target)
    if (top.deleted || top.isInitializing) return null
    top.attachedDevice = source.at
    source.attachedTo = top.at
    source.stackSize = top.stackSize + 1
    source.alignmentRequirement = top.alignmentRequirement
    source.sectorSize = top.sectorSize
    return top
  }

  /** IoDetachDevice: `target` is what the attachment answered. Depths are not lowered. */
  detach(target: DeviceObject): void {
    const above = this.deviceOrNull(target.attachedDevice)
    target.attachedDevice = 0
    if (above !== null) above.attachedTo = 0
    if (target.deleted) this.#collect(target)
  }

  /** The top of the stack (IoGetAttachedDevice). */
  attached(device: DeviceObject): DeviceObject {
    let top = device
    while (top.attachedDevice !== 0) top = this.deviceAt(top.attachedDevice)
    return top
  }

  /** The bottom of the stack (IoGetDeviceAttachmentBaseRef): the PDO of a PnP device. */
  bottom(device: DeviceObject): DeviceObject {
    let low = device
    while (low.attachedTo !== 0) low = this.deviceAt(low.attachedTo)
    return low
  }

  /** The devices of a driver, newest first. */
  devicesOf(driver: DriverObject): DeviceObject[] {
    const found: DeviceObject[] = []
    for (let at = driver.deviceObject; at !== 0; ) {
      const device = this.deviceAt(at)
      found.push(device)
      at = device.nextDevice
    }
    return found
  }
}
