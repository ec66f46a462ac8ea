import type { DriverObject } from './driver-object.ts'
import { DEVICE_OBJECT, DEVOBJ_EXTENSION, DeviceFlag, IoType } from './io-layout.ts'
import { type KernelMemory, KernelRecord, pointer } from './kernel-memory.ts'

const DRIVER_OBJECT = DEVICE_OBJECT.driverObject / 4
const ATTACHED_DEVICE = DEVICE_OBJECT.attachedDevice / 4
const FLAGS = DEVICE_OBJECT.flags / 4
const ALIGNMENT = DEVICE_OBJECT.alignmentRequirement / 4
const STACK_SIZE: number = DEVICE_OBJECT.stackSize

/** A device object: one layer of a device stack. One view per object, so `===` compares devices. */
export class DeviceObject extends KernelRecord {
  readonly driver: DriverObject
  /** The driver's private state; its bytes in guest memory, if it asked for any, are at `deviceExtension`. */
  extension: unknown
  /** Name in the object manager, or null. */
  name: string | null
  /** IoDeleteDevice was called: the memory goes when nobody refers to it. */
  deleted: boolean

  constructor(memory: KernelMemory, at: number, driver: DriverObject) {
    super(memory, at)
    this.driver = driver
    this.extension = null
    this.name = null
    this.deleted = false
  }

  get type(): number {
    return this.window.le16(DEVICE_OBJECT.type, this.at)
  }
  get isDevice(): boolean {
    return this.type === IoType.DEVICE
  }
  /** Open handles, and what else keeps a deleted device's memory. */
  get referenceCount(): number {
    return this.window.le32(DEVICE_OBJECT.referenceCount, this.at) | 0
  }
  set referenceCount(value: number) {
    this.window.putLe32(DEVICE_OBJECT.referenceCount, value, this.at)
  }
  get driverObject(): number {
    return this.words[this.word + DRIVER_OBJECT] as number
  }
  get nextDevice(): number {
    return this.window.le64(DEVICE_OBJECT.nextDevice, this.at)
  }
  set nextDevice(value: number) {
    this.window.putLe64(DEVICE_OBJECT.nextDevice, value, this.at)
  }
  /** The device attached on top of this one, as an address; 0 for none. */
  get attachedDevice(): number {
    return pointer(this.words, this.word + ATTACHED_DEVICE)
  }
  set attachedDevice(value: number) {
    this.window.putLe64(DEVICE_OBJECT.attachedDevice, value, this.at)
  }
  /** IRP that StartIo works on, as an address. */
  get currentIrp(): number {
    return this.window.le64(DEVICE_OBJECT.currentIrp, this.at)
  }
  set currentIrp(value: number) {
    this.window.putLe64(DEVICE_OBJECT.currentIrp, value, this.at)
  }
  get flags(): number {
    return this.words[this.word + FLAGS] as number
  }
  set flags(value: number) {
    this.words[this.word + FLAGS] = value
  }
  get characteristics(): number {
    return this.window.le32(DEVICE_OBJECT.characteristics, this.at)
  }
  set characteristics(value: number) {
    this.window.putLe32(DEVICE_OBJECT.characteristics, value, this.at)
  }
  get deviceExtension(): number {
    return this.window.le64(DEVICE_OBJECT.deviceExtension, this.at)
  }
  get deviceType(): number {
    return this.window.le32(DEVICE_OBJECT.deviceType, this.at)
  }
  set deviceType(value: number) {
    this.window.putLe32(DEVICE_OBJECT.deviceType, value, this.at)
  }
  /** Locations a request to this device needs. */
  get stackSize(): number {
    return this.memory.bytes[this.at + STACK_SIZE] as number
  }
  set stackSize(value: number) {
    this.window.putU8(DEVICE_OBJECT.stackSize, value, this.at)
  }
  /** A mask: FILE_512_BYTE_ALIGNMENT is 0x1ff. */
  get alignmentRequirement(): number {
    return this.words[this.word + ALIGNMENT] as number
  }
  set alignmentRequirement(value: number) {
    this.words[this.word + ALIGNMENT] = value
  }
  get sectorSize(): number {
    return this.window.le16(DEVICE_OBJECT.sectorSize, this.at)
  }
  set sectorSize(value: number) {
    this.window.putLe16(DEVICE_OBJECT.sectorSize, value, this.at)
  }
  /** KDEVICE_QUEUE of StartIo, as an address. */
  get deviceQueue(): number {
    return this.at + (DEVICE_OBJECT.deviceQueue as number)
  }
  /** KDPC of IoRequestDpc, as an address. */
  get dpc(): number {
    return this.at + (DEVICE_OBJECT.dpc as number)
  }
  get objectExtension(): number {
    return this.window.le64(DEVICE_OBJECT.deviceObjectExtension, this.at)
  }
  /** The next lower device, as an address. */
  get attachedTo(): number {
    return this.window.le64(DEVOBJ_EXTENSION.attachedTo, this.objectExtension)
  }
  set attachedTo(value: number) {
    this.window.putLe64(DEVOBJ_EXTENSION.attachedTo, value, this.objectExtension)
  }
  /** The PnP manager's; not 0 makes this a PDO. */
  get deviceNode(): number {
    return this.window.le64(DEVOBJ_EXTENSION.deviceNode, this.objectExtension)
  }
  set deviceNode(value: number) {
    this.window.putLe64(DEVOBJ_EXTENSION.deviceNode, value, this.objectExtension)
  }
  get extensionFlags(): number {
    return this.window.le32(DEVOBJ_EXTENSION.extensionFlags, this.objectExtension)
  }
  set extensionFlags(value: number) {
    this.window.putLe32(DEVOBJ_EXTENSION.extensionFlags, value, this.objectExtension)
  }
  /** StartIo attributes, for IoStartNextPacket. */
  get startIoFlags(): number {
    return this.window.le32(DEVOBJ_EXTENSION.startIoFlags, this.objectExtension)
  }
  set startIoFlags(value: number) {
    this.window.putLe32(DEVOBJ_EXTENSION.startIoFlags, value, this.objectExtension)
  }
  get startIoCount(): number {
    return this.window.le32(DEVOBJ_EXTENSION.startIoCount, this.objectExtension) | 0
  }
  set startIoCount(value: number) {
    this.window.putLe32(DEVOBJ_EXTENSION.startIoCount, value, this.objectExtension)
  }
  get startIoKey(): number {
    return this.window.le32(DEVOBJ_EXTENSION.startIoKey, this.objectExtension)
  }
  set startIoKey(value: number) {
    this.window.putLe32(DEVOBJ_EXTENSION.startIoKey, value, this.objectExtension)
  }

  get isBuffered(): boolean {
    return (this.flags & DeviceFlag.BUFFERED_IO) !== 0
  }
  get isDirect(): boolean {
    return (this.flags & DeviceFlag.DIRECT_IO) !== 0
  }
  /** It is being added, started, removed or deleted: new opens fail. */
  get refusesOpens(): boolean {
    return this.isInitializing || this.extensionFlags !== 0
  }
  get isInitializing(): boolean {
    return (this.flags & DeviceFlag.DEVICE_INITIALIZING) !== 0
  }
}
