import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { KEVENT } from '../../guest/kernel/layout.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { readRelations } from '../../guest/kernel/pnp/device-relations.ts'
import { DeviceRelation, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { allocateResourceList, type Resource } from '../../guest/kernel/pnp/resource-list.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { storPortDriver } from '../../guest/port/storport/storport-driver.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import { LINE, REGISTERS } from './storport-rig.ts'

const TAG = poolTag('Test')

interface Answer {
  readonly status: string
  readonly information: number
}

/** A port driver on a bus that agrees to everything, and Plug and Play requests sent to it by hand. */
export class ByHand {
  readonly kernel: Kernel
  pdo: DeviceObject | null = null
  readonly below: number[] = []
  readonly #known = new Set<DeviceObject>()

  constructor(kernel: Kernel) {
    this.kernel = kernel
  }

  *load(): Waiting<void> {
    const { kernel } = this
    yield* kernel.ioLoadDriver('bus', (driver: DriverObject) => {
      const device = kernel.ioCreateDevice(driver)
      if (typeof device === 'number') return device
      this.pdo = device
      driver.setMajorFunction(
        Major.PNP,
        kernel.routine((_device: DeviceObject, irp: Irp) => {
          this.below.push(irp.current.minor)
          if (irp.current.minor !== PnpMinor.QUERY_DEVICE_RELATIONS) irp.status = NtStatus.SUCCESS
          const { status } = irp
          kernel.ioCompleteRequest(irp)
          return status
        }),
      )
      return NtStatus.SUCCESS
    })
    const port = yield* kernel.ioLoadDriver('pvblk', storPortDriver(kernel, blkMiniport('1.3')))
    if (typeof port === 'number' || this.pdo === null) throw new Error('not loaded')
    const added = kernel.call(port.addDevice)(port, this.pdo)
    if (added !== NtStatus.SUCCESS) throw new Error('not added')
  }

  /** Sends one to the top of the device's stack and waits for it. */
  *send(device: DeviceObject, minor: number, argument1 = 0, argument2 = 0): Waiting<Answer> {
    const { kernel } = this
    const top = kernel.ioGetAttachedDevice(device)
    const irp = kernel.ioAllocateIrp(top.stackSize)
    const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KEVENT.$size, TAG)
    if (irp === null || room === 0) throw new Error('no memory')
    const event = kernel.keInitializeEvent(room, true, false)
    irp.status = NtStatus.NOT_SUPPORTED
    irp.next.major = Major.PNP
    irp.next.minor = minor as never
    irp.next.argument1 = argument1
    irp.next.argument2 = argument2
    const ended = kernel.routine(() => {
      kernel.keSetEvent(event)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    kernel.ioSetCompletionRoutine(irp, ended)
    yield* kernel.ioCallDriverSettled(top, irp)
    yield* kernel.keWaitForSingleObject(event)
    const answer = { status: ntStatusName(irp.status), information: irp.information }
    kernel.ioFreeIrp(irp)
    kernel.exFreePool(room)
    return answer
  }

  /** The nodes are gone. */
  forget(): void {
    for (const device of this.#known) this.kernel.parts.devices.dereference(device)
    this.#known.clear()
  }

  *start(resources?: readonly Resource[]): Waiting<string> {
    const { kernel } = this
    if (this.pdo === null) throw new Error('not loaded')
    const list = allocateResourceList(
      kernel.parts,
      resources ?? [
        { kind: 'memory', start: REGISTERS, lengthBytes: 0x200 },
        { kind: 'interrupt', level: LINE, vector: LINE, trigger: 'level', shared: false },
      ],
    )
    const { status } = yield* this.send(this.pdo, PnpMinor.START_DEVICE, list, list)
    kernel.exFreePool(list)
    return status
  }

  *children(): Waiting<DeviceObject[]> {
    const { kernel } = this
    if (this.pdo === null) throw new Error('not loaded')
    const answer = yield* this.send(this.pdo, PnpMinor.QUERY_DEVICE_RELATIONS, DeviceRelation.BUS)
    if (answer.status !== 'SUCCESS') throw new Error(`no relations: ${answer.status}`)
    const addresses = readRelations(kernel.parts, answer.information) ?? []
    kernel.exFreePool(answer.information)
    const devices = addresses.map((at) => kernel.parts.devices.deviceAt(at))
    // One reference a device is kept, as the PnP manager does for as long as there is a node for it.
    for (const device of devices) {
      if (this.#known.has(device)) kernel.parts.devices.dereference(device)
      this.#known.add(device)
    }
    return devices
  }
}
