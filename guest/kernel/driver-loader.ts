import type { DeviceTable } from './device-table.ts'
import type { DriverEntry, DriverObject } from './driver-object.ts'
import { DeviceFlag } from './io-layout.ts'
import { NtStatus, ntSuccess } from './nt-status.ts'
import type { RoutineTable } from './routine.ts'
import { isWaiting, settled, type Waiting } from './thread.ts'

/** Loads and unloads drivers. */
export class DriverLoader {
  readonly #devices: DeviceTable
  readonly #routines: RoutineTable
  readonly #loaded: Map<string, DriverObject>

  constructor(devices: DeviceTable, routines: RoutineTable) {
    this.#devices = devices
    this.#routines = routines
    this.#loaded = new Map()
  }

  /** The loaded driver of that service. */
  find(service: string): DriverObject | null {
    return this.#loaded.get(service.toLowerCase()) ?? null
  }

  /**
   * Makes the driver object and calls DriverEntry. Devices made inside lose DO_DEVICE_INITIALIZING; a failed
   * DriverEntry leaves nothing behind.
   */
  *load(service: string, entry: DriverEntry): Waiting<DriverObject | NtStatus> {
    const key = service.toLowerCase()
    if (this.#loaded.has(key)) return NtStatus.IMAGE_ALREADY_LOADED
    const driver = this.#devices.createDriver(`\\Driver\\${service}`)
    if (driver === null) return NtStatus.INSUFFICIENT_RESOURCES
    this.#loaded.set(key, driver)
    const status = yield* settled(
      entry(driver, `\\Registry\\Machine\\System\\CurrentControlSet\\Services\\${service}`),
    )
    if (!ntSuccess(status)) {
      for (const device of this.#devices.devicesOf(driver)) this.#devices.deleteDevice(device)
      this.#forget(key, driver)
      return status
    }
    for (const device of this.#devices.devicesOf(driver)) device.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    return driver
  }

  /** Calls DriverUnload. INVALID_DEVICE_REQUEST when the driver has none, or still has devices. */
  *unload(driver: DriverObject): Waiting {
    const { unload } = driver
    if (unload === 0 || this.#devices.devicesOf(driver).some((device) => device.referenceCount > 0)) {
      return NtStatus.INVALID_DEVICE_REQUEST
    }
    const result = this.#routines.resolve(unload)(driver)
    if (isWaiting(result)) yield* result
    if (driver.deviceObject !== 0) return NtStatus.INVALID_DEVICE_REQUEST
    for (const [key, loaded] of this.#loaded) if (loaded === driver) this.#forget(key, driver)
    return NtStatus.SUCCESS
  }

  #forget(key: string, driver: DriverObject): void {
    this.#loaded.delete(key)
    this.#devices.deleteDriver(driver)
  }
}
