import type { Trigger } from '../../../protocol/processor.ts'
import type { InterruptResource, RangeResource, Resource } from './resource-list.ts'
import type {
  InterruptRequirement,
  RangeRequirement,
  Requirement,
  RequirementLists,
} from './resource-requirements.ts'

/** Candidates looked at for one assignment before it is given up. */
const STEPS_MAX = 10_000

interface HeldRange {
  readonly owner: unknown
  readonly kind: 'memory' | 'port'
  readonly start: number
  /** First address behind it. */
  readonly end: number
}
interface HeldLine {
  readonly owner: unknown
  readonly line: number
  readonly trigger: Trigger
  readonly shared: boolean
}

/** Who holds which addresses, ports and interrupt lines. No two hold one that is not shared. */
export class Arbiter {
  #ranges: HeldRange[]
  #lines: HeldLine[]
  #steps: number

  constructor() {
    this.#ranges = []
    this.#lines = []
    this.#steps = 0
  }

  /** Takes exactly these; false, with nothing taken, when one of them is held or makes no sense. */
  reserve(owner: unknown, resources: readonly Resource[]): boolean {
    for (const resource of resources) {
      if (!(resource.kind === 'interrupt' ? this.#lineFits(resource) : this.#rangeFits(resource))) {
        this.#drop(owner, resources)
        return false
      }
      this.#hold(owner, resource)
    }
    return true
  }

  holdsLine(line: number): boolean {
    return this.#lines.some((held) => held.line === line)
  }

  /** Lets go of everything the owner holds. */
  release(owner: unknown): void {
    this.#ranges = this.#ranges.filter((held) => held.owner !== owner)
    this.#lines = this.#lines.filter((held) => held.owner !== owner)
  }

  /** Assigns what the first list that can be met asks for; null, with nothing taken, when none can. */
  assign(owner: unknown, lists: RequirementLists): Resource[] | null {
    this.#steps = 0
    for (const list of lists) {
      const assigned = this.#assignGroups(owner, groupsOf(list))
      if (assigned !== null) return assigned
    }
    return null
  }

  /** One of each group; goes back to the group before when a later one cannot be met. */
  #assignGroups(owner: unknown, groups: readonly (readonly Requirement[])[]): Resource[] | null {
    const [group, ...rest] = groups
    if (group === undefined) return []
    for (const requirement of group) {
      if (++this.#steps > STEPS_MAX) return null
      const resource =
        requirement.kind === 'interrupt' ? this.#freeLine(requirement) : this.#freeRange(requirement)
      if (resource === null) continue
      this.#hold(owner, resource)
      const others = this.#assignGroups(owner, rest)
      if (others !== null) return [resource, ...others]
      this.#drop(owner, [resource])
    }
    return null
  }

  #hold(owner: unknown, resource: Resource): void {
    if (resource.kind === 'interrupt') {
      const { level: line, trigger, shared } = resource
      this.#lines.push({ owner, line, trigger, shared })
    } else {
      const { kind, start, lengthBytes } = resource
      this.#ranges.push({ owner, kind, start, end: start + lengthBytes })
    }
  }

  #drop(owner: unknown, resources: readonly Resource[]): void {
    for (const resource of resources) {
      if (resource.kind === 'interrupt') {
        const at = this.#lines.findIndex((held) => held.owner === owner && held.line === resource.level)
        if (at >= 0) this.#lines.splice(at, 1)
      } else {
        const at = this.#ranges.findIndex(
          (held) => held.owner === owner && held.kind === resource.kind && held.start === resource.start,
        )
        if (at >= 0) this.#ranges.splice(at, 1)
      }
    }
  }

  #rangeFits({ kind, start, lengthBytes }: RangeResource): boolean {
    const end = start + lengthBytes
    if (!(start >= 0 && lengthBytes > 0 && end <= addressLimit(kind))) return false
    return !this.#ranges.some((held) => held.kind === kind && start < held.end && held.start < end)
  }

  #lineFits({ level, trigger, shared }: InterruptResource): boolean {
    return this.#lines.every(
      (held) => held.line !== level || (shared && held.shared && held.trigger === trigger),
    )
  }

  /** The lowest start that fits. */
  #freeRange({ kind, lengthBytes, alignment, minimum, maximum }: RangeRequirement): RangeResource | null {
    const step = Math.max(1, alignment)
    const held = this.#ranges.filter((range) => range.kind === kind).sort((a, b) => a.start - b.start)
    let start = Math.ceil(minimum / step) * step
    for (const range of held) {
      if (range.end <= start) continue
      if (start + lengthBytes <= range.start) break
      start = Math.ceil(range.end / step) * step
    }
    const resource = { kind, start, lengthBytes }
    return start + lengthBytes - 1 <= maximum && this.#rangeFits(resource) ? resource : null
  }

  /** A line nobody has, else one that may be shared. */
  #freeLine({ minimum, maximum, trigger, shared }: InterruptRequirement): InterruptResource | null {
    const last = Math.min(maximum, minimum + STEPS_MAX)
    let common: InterruptResource | null = null
    for (let line = minimum; line <= last; line++) {
      const resource: InterruptResource = { kind: 'interrupt', level: line, vector: line, trigger, shared }
      if (!this.#lines.some((held) => held.line === line)) return resource
      if (common === null && this.#lineFits(resource)) common = resource
    }
    return common
  }
}

function addressLimit(kind: 'memory' | 'port'): number {
  return kind === 'port' ? 0x1_0000 : 2 ** 52
}

/** Requirements with their alternatives, the preferred ones first. */
function groupsOf(list: readonly Requirement[]): Requirement[][] {
  const groups: Requirement[][] = []
  for (const requirement of list) {
    const group = groups.at(-1)
    if (requirement.alternative === true && group !== undefined) group.push(requirement)
    else groups.push([requirement])
  }
  return groups.map((group) => [
    ...group.filter((one) => one.preferred === true),
    ...group.filter((one) => one.preferred !== true),
  ])
}
