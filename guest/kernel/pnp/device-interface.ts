import type { DeviceObject } from '../device-object.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus } from '../nt-status.ts'
import type { DeviceNode } from './device-node.ts'

/** A class of devices that applications find by what they can do. */
export const InterfaceClass = {
  DISK: '53f56307-b6bf-11d0-94f2-00a0c91efb8b',
  STORAGE_PORT: '2accfe60-c130-11d2-b082-00a0c91efb8b',
} as const

interface DeviceInterface {
  readonly link: string
  readonly guid: string
  pdo: DeviceObject
  enabled: boolean
}

/**
 * Device interfaces: a driver registers one for its PDO, disabled, when it adds the device; enables it once the
 * device works; and disables it when the device is removed. While it is enabled its symbolic link leads to the
 * PDO, and so to the top of the stack. A registration stays, as Windows' registry keeps it: the same device has
 * the same link the next time.
 */
export class DeviceInterfaces {
  readonly #parts: KernelParts
  /** By symbolic link, folded. */
  readonly #registered: Map<string, DeviceInterface>

  constructor(parts: KernelParts) {
    this.#parts = parts
    this.#registered = new Map()
  }

  /**
   * IoRegisterDeviceInterface: the name of the symbolic link. INVALID_DEVICE_REQUEST for a device that no bus has
   * reported yet. A second registration answers the same name.
   */
  register(pdo: DeviceObject, guid: string, reference = ''): string | NtStatus {
    const node = pdo.deviceNode === 0 ? null : this.#parts.contexts.get<DeviceNode>(pdo.deviceNode)
    if (node === null || node.instancePath === '') return NtStatus.INVALID_DEVICE_REQUEST
    const path = node.instancePath.replaceAll('\\', '#')
    const link = `\\??\\${path}#{${guid}}${reference === '' ? '' : `\\${reference}`}`
    const known = this.#registered.get(link.toLowerCase())
    if (known === undefined) this.#registered.set(link.toLowerCase(), { link, guid, pdo, enabled: false })
    // A successor takes the place of one that has left it.
    else if (!known.enabled) known.pdo = pdo
    return known?.link ?? link
  }

  /**
   * IoSetDeviceInterfaceState. OBJECT_NAME_EXISTS, no error, for one that is enabled already;
   * OBJECT_NAME_NOT_FOUND for one that is not there, or is disabled already.
   */
  setState(link: string, enable: boolean): NtStatus {
    const found = this.#registered.get(link.toLowerCase())
    if (found === undefined) return NtStatus.OBJECT_NAME_NOT_FOUND
    const { names } = this.#parts
    if (!enable) {
      if (!found.enabled) return NtStatus.OBJECT_NAME_NOT_FOUND
      found.enabled = false
      names.unlink(link)
      return NtStatus.SUCCESS
    }
    if (found.enabled) return NtStatus.OBJECT_NAME_EXISTS
    if (found.pdo.name === null) return NtStatus.INVALID_DEVICE_REQUEST
    const status = names.link(link, found.pdo.name)
    found.enabled = status === NtStatus.SUCCESS
    return status
  }

  /** IoGetDeviceInterfaces: links of a class, sorted; the disabled ones too where that is asked for. */
  list(guid: string, includeDisabled = false): string[] {
    const found: string[] = []
    for (const one of this.#registered.values()) {
      if (one.guid === guid && (one.enabled || includeDisabled)) found.push(one.link)
    }
    return found.sort()
  }

  /** The device is leaving: what its driver left enabled is disabled. */
  disableOf(pdo: DeviceObject): void {
    for (const { link, pdo: of, enabled } of this.#registered.values()) {
      if (of === pdo && enabled) this.setState(link, false)
    }
  }
}
