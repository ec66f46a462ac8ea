import type { DriverObject } from '../driver-object.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { ntSuccess } from '../nt-status.ts'
import { settled, type Waiting } from '../thread.ts'
import type { DeviceNode } from './device-node.ts'
import { CapabilityFlag } from './pnp-layout.ts'
import { Problem } from './problem.ts'
import { findService, findStackPlan, type ServiceRegistry } from './service-registry.ts'

/** Loads drivers and has them add a device: the stack grows from its PDO upwards. */
export class StackBuilder {
  readonly #parts: KernelParts
  /** Services the PnP manager loaded: those it unloads again. */
  readonly #loaded: Set<string>

  constructor(parts: KernelParts) {
    this.#parts = parts
    this.#loaded = new Set()
  }

  /**
   * Lower filters, the function driver, upper filters. Answers the problem; drivers that have attached by then
   * stay attached, and have to be sent REMOVE.
   */
  *build(node: DeviceNode, registry: ServiceRegistry): Waiting<Problem | null> {
    const { identity } = node
    if (identity === null) return Problem.INVALID_DATA
    const plan = findStackPlan(registry, identity.hardwareIds, identity.compatibleIds)
    node.plan = plan
    const raw = (identity.capabilities & CapabilityFlag.RAW_DEVICE_OK) !== 0
    if (plan?.match.service === undefined && !raw) return Problem.FAILED_INSTALL
    if (plan === null) return null
    const { service } = plan.match
    const services = [...plan.lowerFilters, ...(service === undefined ? [] : [service]), ...plan.upperFilters]
    for (const name of services) {
      const problem = yield* this.#add(node, registry, name)
      if (problem !== null) return problem
    }
    return null
  }

  *#add(node: DeviceNode, registry: ServiceRegistry, name: string): Waiting<Problem | null> {
    const driver = yield* this.#load(registry, name)
    if (typeof driver === 'number') return driver
    node.services = [...node.services, name]
    const { addDevice } = driver
    if (addDevice === 0) return Problem.FAILED_ADD
    const status = yield* settled(this.#parts.routines.resolve(addDevice)(driver, node.pdo))
    return ntSuccess(status) ? null : Problem.FAILED_ADD
  }

  *#load(registry: ServiceRegistry, name: string): Waiting<DriverObject | Problem> {
    const { drivers } = this.#parts
    const loaded = drivers.find(name)
    if (loaded !== null) return loaded
    const service = findService(registry, name)
    if (service === null) return Problem.DRIVER_SERVICE_KEY_INVALID
    if (service.disabled === true) return Problem.DISABLED_SERVICE
    const driver = yield* drivers.load(service.name, service.entry)
    if (typeof driver === 'number') return Problem.FAILED_DRIVER_ENTRY
    this.#loaded.add(service.name.toLowerCase())
    return driver
  }

  /** Unloads those of the node's drivers that have no device left. */
  *release(node: DeviceNode): Waiting<void> {
    const { drivers } = this.#parts
    const { services } = node
    node.services = []
    for (const name of services) {
      const driver = drivers.find(name)
      if (driver === null || driver.deviceObject !== 0 || !this.#loaded.has(name.toLowerCase())) continue
      if (ntSuccess(yield* drivers.unload(driver))) this.#loaded.delete(name.toLowerCase())
    }
  }

  /** Sets or clears a DOE_* bit on every device of the stack: what IoCreateFile looks at. */
  mark(node: DeviceNode, flag: number, on: boolean): void {
    const { devices } = this.#parts
    for (let device = node.pdo; ; device = devices.deviceAt(device.attachedDevice)) {
      device.extensionFlags = on ? device.extensionFlags | flag : device.extensionFlags & ~flag
      if (device.attachedDevice === 0) return
    }
  }

  /** Whether a file is open on any device of the stack. */
  isOpen(node: DeviceNode): boolean {
    const { files, devices } = this.#parts
    for (const file of files.all) if (devices.bottom(file.device) === node.pdo) return true
    return false
  }
}
