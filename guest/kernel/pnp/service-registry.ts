import type { DriverEntry } from '../driver-object.ts'

/** A driver image the system can load: a key below `Services`. */
export interface DriverService {
  readonly name: string
  readonly entry: DriverEntry
  /** SERVICE_DISABLED: a device that needs it gets a problem code. */
  readonly disabled?: boolean
}

/** Filter services above and below a function driver, in the order in which they attach. */
export interface FilterServices {
  readonly lowerFilters?: readonly string[]
  readonly upperFilters?: readonly string[]
}

/** Which driver a device gets: a driver package's INF, as plain data. */
export interface DriverMatch extends FilterServices {
  /** Hardware or compatible IDs it is for; case does not matter. */
  readonly hardwareIds: readonly string[]
  /** Service of the function driver. Without one the bus driver serves the device raw. */
  readonly service?: string
  /** Setup class, by name. */
  readonly className?: string
  /** Name to show; without it, the bus driver's own text. */
  readonly description?: string
}

/** A setup class: its filters attach to every device of the class. */
export interface SetupClass extends FilterServices {
  readonly name: string
}

/** What the registry holds: services, which device gets which, and the filters of classes. */
export interface ServiceRegistry {
  readonly services: readonly DriverService[]
  readonly drivers: readonly DriverMatch[]
  readonly classes?: readonly SetupClass[]
}

/** Services that make up one device's stack, in the order their AddDevice routines are called. */
export interface StackPlan {
  readonly match: DriverMatch
  readonly lowerFilters: readonly string[]
  readonly upperFilters: readonly string[]
}

/**
 * The driver for a device: the first of its hardware IDs, then of its compatible IDs, that a driver is for. Among
 * drivers for the same ID the first listed wins.
 */
export function findStackPlan(
  registry: ServiceRegistry,
  hardwareIds: readonly string[],
  compatibleIds: readonly string[],
): StackPlan | null {
  for (const id of [...hardwareIds, ...compatibleIds]) {
    const match = registry.drivers.find((driver) =>
      driver.hardwareIds.some((known) => known.toLowerCase() === id.toLowerCase()),
    )
    if (match !== undefined) return planOf(registry, match)
  }
  return null
}

function planOf(registry: ServiceRegistry, match: DriverMatch): StackPlan {
  const setupClass = registry.classes?.find((one) => one.name === match.className)
  // On either side a device's own filters lie below those of its class.
  return {
    match,
    lowerFilters: [...(match.lowerFilters ?? []), ...(setupClass?.lowerFilters ?? [])],
    upperFilters: [...(match.upperFilters ?? []), ...(setupClass?.upperFilters ?? [])],
  }
}

export function findService(registry: ServiceRegistry, name: string): DriverService | null {
  return registry.services.find((service) => service.name.toLowerCase() === name.toLowerCase()) ?? null
}
