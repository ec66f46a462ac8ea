import type { DeviceObject } from './device-object.ts'
import { DRIVER_EXTENSION, DRIVER_OBJECT, type Major } from './io-layout.ts'
import type { Irp } from './irp.ts'
import { KernelRecord } from './kernel-memory.ts'
import type { NtStatus } from './nt-status.ts'
import type { Routine } from './routine.ts'
import type { Waiting } from './thread.ts'

/**
 * DRIVER_DISPATCH: answers PENDING exactly if it marked its own location, else the status it stored (or what
 * ioCallDriver answered). A routine that has to wait is a generator function and may be entered at PASSIVE
 * level only.
 */
export type DispatchRoutine = (device: DeviceObject, irp: Irp) => NtStatus | Waiting
/** DRIVER_ADD_DEVICE. */
export type AddDeviceRoutine = (driver: DriverObject, physicalDevice: DeviceObject) => NtStatus | Waiting
/** DRIVER_STARTIO: at DISPATCH level, for the device's current request. */
export type StartIoRoutine = (device: DeviceObject, irp: Irp) => void
/** DRIVER_UNLOAD; a generator function may wait. */
export type UnloadRoutine = (driver: DriverObject) => unknown
/** DRIVER_INITIALIZE: fills in the driver object. */
export type DriverEntry = (driver: DriverObject, registryPath: string) => NtStatus | Waiting

const MAJOR_FUNCTION = DRIVER_OBJECT.majorFunction / 4

/** A loaded driver: its routines and its devices. */
export class DriverObject extends KernelRecord {
  /** \Driver\name. */
  name = ''

  /** Its first device, as an address; the others follow `nextDevice`. */
  get deviceObject(): number {
    return this.window.le64(DRIVER_OBJECT.deviceObject, this.at)
  }
  set deviceObject(value: number) {
    this.window.putLe64(DRIVER_OBJECT.deviceObject, value, this.at)
  }
  get flags(): number {
    return this.window.le32(DRIVER_OBJECT.flags, this.at)
  }
  set flags(value: number) {
    this.window.putLe32(DRIVER_OBJECT.flags, value, this.at)
  }
  get driverExtension(): number {
    return this.window.le64(DRIVER_OBJECT.driverExtension, this.at)
  }
  get startIo(): Routine<StartIoRoutine> {
    return this.window.le64(DRIVER_OBJECT.driverStartIo, this.at) as Routine<StartIoRoutine>
  }
  set startIo(value: Routine<StartIoRoutine>) {
    this.window.putLe64(DRIVER_OBJECT.driverStartIo, value, this.at)
  }
  get unload(): Routine<UnloadRoutine> {
    return this.window.le64(DRIVER_OBJECT.driverUnload, this.at) as Routine<UnloadRoutine>
  }
  set unload(value: Routine<UnloadRoutine>) {
    this.window.putLe64(DRIVER_OBJECT.driverUnload, value, this.at)
  }
  get addDevice(): Routine<AddDeviceRoutine> {
    return this.window.le64(DRIVER_EXTENSION.addDevice, this.driverExtension) as Routine<AddDeviceRoutine>
  }
  set addDevice(value: Routine<AddDeviceRoutine>) {
    this.window.putLe64(DRIVER_EXTENSION.addDevice, value, this.driverExtension)
  }

  majorFunction(major: number): Routine<DispatchRoutine> {
    return this.words[this.word + MAJOR_FUNCTION + major * 2] as Routine<DispatchRoutine>
  }
  setMajorFunction(major: Major, routine: Routine<DispatchRoutine>): void {
    this.window.putLe64(DRIVER_OBJECT.majorFunction, routine, this.at + major * 8)
  }
}
