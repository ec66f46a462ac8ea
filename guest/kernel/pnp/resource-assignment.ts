import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus, ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import { Arbiter } from './arbiter.ts'
import type { DeviceNode } from './device-node.ts'
import { PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'
import { Problem } from './problem.ts'
import { allocateResourceList, type Resource, readResourceList } from './resource-list.ts'
import { allocateRequirements, type RequirementLists, readRequirements } from './resource-requirements.ts'

/** From what a device asks for to what START tells its drivers. */
export class ResourceAssignment {
  readonly #parts: KernelParts
  readonly #requests: PnpRequests
  readonly #arbiter: Arbiter

  constructor(parts: KernelParts, requests: PnpRequests) {
    this.#parts = parts
    this.#requests = requests
    this.#arbiter = new Arbiter()
    // RAM is nobody's window.
    for (const { base, bytes } of parts.memory.guest.regions) {
      this.#arbiter.reserve(this, [{ kind: 'memory', start: base, lengthBytes: bytes.length }])
    }
  }

  /** Asks the PDO for its boot configuration and its requirements. The problem, when memory is short. */
  *query(node: DeviceNode): Waiting<Problem | null> {
    const { pool, hal } = this.#parts
    const boot = yield* this.#requests.send(node.pdo, PnpMinor.QUERY_RESOURCES)
    const resourceList = ntSuccess(boot.status) ? boot.information : 0
    node.bootResources = readResourceList(this.#parts, resourceList)
    if (resourceList !== 0) pool.free(resourceList, hal.irql)
    const wanted = yield* this.#requests.send(node.pdo, PnpMinor.QUERY_RESOURCE_REQUIREMENTS)
    const list = ntSuccess(wanted.status) ? wanted.information : 0
    node.requirements = readRequirements(this.#parts, list)
    if (list !== 0) pool.free(list, hal.irql)
    const short = [boot.status, wanted.status].includes(NtStatus.INSUFFICIENT_RESOURCES)
    return short ? Problem.OUT_OF_MEMORY : null
  }

  /** Lets the stack change what it needs and assigns it. Without requirements, the boot configuration. */
  *assign(node: DeviceNode): Waiting<Problem | null> {
    const { bootResources, requirements } = node
    if (bootResources === null || requirements === null) return Problem.INVALID_DATA
    const lists = yield* this.#filter(node, requirements)
    if (typeof lists === 'number') return lists
    const resources =
      lists.length > 0
        ? this.#arbiter.assign(node, lists)
        : this.#arbiter.reserve(node, bootResources)
          ? bootResources
          : null
    if (resources === null) return Problem.NORMAL_CONFLICT
    node.resources = resources
    return null
  }

  /**
   * FILTER_RESOURCE_REQUIREMENTS. The list handed down stays the manager's unless the stack hands the same one
   * back; another one in its place is freed too.
   */
  *#filter(node: DeviceNode, requirements: RequirementLists): Waiting<RequirementLists | Problem> {
    const { pool, hal } = this.#parts
    const given = requirements.length === 0 ? 0 : allocateRequirements(this.#parts, requirements)
    if (requirements.length > 0 && given === 0) return Problem.OUT_OF_MEMORY
    const { status, information } = yield* this.#requests.send(
      node.pdo,
      PnpMinor.FILTER_RESOURCE_REQUIREMENTS,
      given,
    )
    const answered = ntSuccess(status) ? information : 0
    const lists = answered === 0 ? requirements : readRequirements(this.#parts, answered)
    if (answered !== 0) pool.free(answered, hal.irql)
    if (given !== 0 && given !== answered) pool.free(given, hal.irql)
    if (status === NtStatus.INSUFFICIENT_RESOURCES) return Problem.OUT_OF_MEMORY
    return lists ?? Problem.INVALID_DATA
  }

  /** START's two lists in pool; [] for a device without resources, or the problem. */
  startLists(node: DeviceNode): readonly number[] | Problem {
    const { resources } = node
    if (resources.length === 0) return []
    const translated = this.#translate(resources)
    if (translated === null) return Problem.TRANSLATION_FAILED
    const lists = [
      allocateResourceList(this.#parts, resources),
      allocateResourceList(this.#parts, translated),
    ]
    if (!lists.includes(0)) return lists
    this.free(lists)
    return Problem.OUT_OF_MEMORY
  }

  /** Memory and ports look the same from the processor; a line becomes a vector and its level. */
  #translate(resources: readonly Resource[]): Resource[] | null {
    const translated: Resource[] = []
    for (const resource of resources) {
      if (resource.kind !== 'interrupt') {
        translated.push(resource)
        continue
      }
      const assigned = this.#parts.interrupts.assign(resource.level, resource.trigger)
      if (assigned === null) return null
      translated.push({ ...resource, level: assigned.irql, vector: assigned.vector })
    }
    return translated
  }

  free(lists: readonly number[]): void {
    for (const at of lists) if (at !== 0) this.#parts.pool.free(at, this.#parts.hal.irql)
  }

  release(node: DeviceNode): void {
    this.#arbiter.release(node)
    for (const resource of node.resources) {
      if (resource.kind === 'interrupt' && !this.#arbiter.holdsLine(resource.level)) {
        this.#parts.interrupts.unassign(resource.level)
      }
    }
    node.resources = []
  }
}
