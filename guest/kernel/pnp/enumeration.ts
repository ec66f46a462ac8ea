import { BugCode, keBugCheckEx } from '../bug-check.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import type { WindowsVersion } from '../version.ts'
import type { DeviceNode } from './device-node.ts'
import type { DeviceStart, StartOutcome } from './device-start.ts'
import type { Identification } from './identification.ts'
import type { NodeTable } from './node-table.ts'
import { PnpFatal } from './pnp-fatal.ts'
import { CapabilityFlag } from './pnp-layout.ts'
import { DeviceRelation, PnpDeviceState, PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'
import { Problem } from './problem.ts'
import type { Removal } from './removal.ts'
import type { ResourceAssignment } from './resource-assignment.ts'
import type { ServiceRegistry } from './service-registry.ts'
import type { StackBuilder } from './stack-builder.ts'

/** Buses below buses; deeper ones are not asked for their children. */
const DEPTH_MAX = 32

/** Bits of PNP_DEVICE_STATE by which a stack says that its device does not work, and the problem it then has. */
const FATAL_STATES: readonly (readonly [number, Problem])[] = [
  [PnpDeviceState.REMOVED, Problem.DEVICE_NOT_THERE],
  [PnpDeviceState.FAILED, Problem.FAILED_POST_START],
  [PnpDeviceState.DISABLED, Problem.HARDWARE_DISABLED],
]

export interface EnumerationParts {
  readonly kernel: KernelParts
  readonly version: WindowsVersion
  readonly nodes: NodeTable
  readonly requests: PnpRequests
  readonly identification: Identification
  readonly resources: ResourceAssignment
  readonly builder: StackBuilder
  readonly start: DeviceStart
  readonly removal: () => Removal
  readonly registry: () => ServiceRegistry
  readonly root: () => DeviceNode
}

/** From a bus's list of children to devices that work. */
export class Enumeration {
  readonly #parts: EnumerationParts

  constructor(parts: EnumerationParts) {
    this.#parts = parts
  }

  /** Asks a bus for its children: new ones are brought up, missing ones are gone. */
  *enumerate(bus: DeviceNode): Waiting<void> {
    if (bus.state !== 'started' || bus.depth >= DEPTH_MAX) return
    const { nodes, kernel } = this.#parts
    const listed = yield* nodes.relations(bus, DeviceRelation.BUS)
    if (bus.problem === Problem.OUT_OF_MEMORY) bus.problem = null
    if (listed === 'none') return
    if (typeof listed === 'string') {
      bus.problem = listed === 'malformed' ? Problem.INVALID_DATA : Problem.OUT_OF_MEMORY
      return
    }
    for (const child of bus.children) child.present = false
    for (const pdo of listed) {
      const known = nodes.nodeOf(pdo)
      if (known === null) {
        nodes.create(pdo, bus)
        continue
      }
      // The node holds a reference already.
      kernel.devices.dereference(pdo)
      if (known.parent === bus) known.present = true
      else bus.problem = Problem.INVALID_DATA
    }
    for (const child of [...bus.children]) {
      if (!child.present && child.state !== 'surprise-removed')
        yield* this.#parts.removal().surprise(child, null)
    }
    for (const child of [...bus.children]) {
      // Memory that ran out may be back.
      if (child.problem === Problem.OUT_OF_MEMORY && child.state !== 'started') child.problem = null
      if (child.state === 'new' && child.problem === null) yield* this.#identify(child)
      if (child.state === 'identified' && child.problem === null) yield* this.bringUp(child)
    }
  }

  *#identify(node: DeviceNode): Waiting<void> {
    const { identification, resources, requests, version } = this.#parts
    node.problem = yield* identification.identify(node)
    if (node.problem !== null) return
    const other = this.#namesake(node)
    if (other !== null) {
      // One bus that speaks of two is broken; a device that is found in a second place waits for the first to go.
      if (other.parent === node.parent) {
        keBugCheckEx(BugCode.PNP_DETECTED_FATAL_ERROR, PnpFatal.DUPLICATE_PDO, node.pdo.at, other.pdo.at)
      }
      node.problem = Problem.DUPLICATE_DEVICE
      return
    }
    node.problem = yield* resources.query(node)
    if (node.problem !== null) return
    node.advance('identify')
    if (version.containerId) yield* requests.send(node.pdo, PnpMinor.DEVICE_ENUMERATED)
  }

  /** Another device that has the node's path. */
  #namesake(node: DeviceNode): DeviceNode | null {
    const path = node.instancePath.toUpperCase()
    const found = this.#parts
      .root()
      .subtree()
      .find((other) => other !== node && !other.isLeaving && other.instancePath.toUpperCase() === path)
    return found ?? null
  }

  /** Drivers, resources, START, and then the children. */
  *bringUp(node: DeviceNode): Waiting<void> {
    const { builder, start } = this.#parts
    if (((node.identity?.capabilities ?? 0) & CapabilityFlag.HARDWARE_DISABLED) !== 0) {
      node.problem = Problem.HARDWARE_DISABLED
      return
    }
    const problem = yield* builder.build(node, this.#parts.registry())
    if (problem !== null && node.services.length === 0) {
      node.problem = problem
      return
    }
    node.advance('add')
    yield* this.#ended(node, problem ?? (yield* start.begin(node)))
  }

  /** A START that was pending is done. */
  *startEnded(node: DeviceNode): Waiting<void> {
    if (node.start !== null) yield* this.#ended(node, yield* this.#parts.start.complete(node))
  }

  /** Waits for every START under way at the node and below, with what follows from it. */
  *settleStarts(top: DeviceNode): Waiting<void> {
    for (;;) {
      const starting = top.subtree().find((node) => node.start !== null)
      if (starting === undefined) return
      yield* this.startEnded(starting)
    }
  }

  *#ended(node: DeviceNode, outcome: StartOutcome): Waiting<void> {
    if (outcome === 'pending') return
    if (outcome !== 'started') {
      yield* this.#parts.removal().tearDown(node, outcome)
      return
    }
    const told = yield* this.#parts.identification.capabilities(node)
    if (node.identity !== null && told !== null) {
      node.identity = { ...node.identity, capabilities: told.flags }
    }
    if (yield* this.queryState(node)) yield* this.enumerate(node)
  }

  /** QUERY_PNP_DEVICE_STATE. False when the device turned out not to work, and is gone. */
  *queryState(node: DeviceNode): Waiting<boolean> {
    const { status, information } = yield* this.#parts.requests.send(
      node.pdo,
      PnpMinor.QUERY_PNP_DEVICE_STATE,
    )
    node.deviceState = ntSuccess(status) ? information : 0
    const fatal = FATAL_STATES.find(([bit]) => (node.deviceState & bit) !== 0)
    if (fatal === undefined) return true
    yield* this.#parts.removal().surprise(node, fatal[1])
    return false
  }
}
