import type { DeviceObject } from '../device-object.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import type { WindowsVersion } from '../version.ts'
import { ActionQueue } from './action-queue.ts'
import { DeviceInterfaces } from './device-interface.ts'
import type { DeviceNode } from './device-node.ts'
import { DeviceStart } from './device-start.ts'
import { type DeviceView, viewOf } from './device-view.ts'
import { Enumeration } from './enumeration.ts'
import { Identification } from './identification.ts'
import { NodeTable } from './node-table.ts'
import { CapabilityFlag } from './pnp-layout.ts'
import { DeviceRelation, PnpDeviceState, PnpMinor } from './pnp-minor.ts'
import { PnpRequests } from './pnp-request.ts'
import { Problem } from './problem.ts'
import { Rebalance } from './rebalance.ts'
import { Removal, type Veto } from './removal.ts'
import { ResourceAssignment } from './resource-assignment.ts'
import { RootBus, type RootDevice } from './root-bus.ts'
import type { ServiceRegistry } from './service-registry.ts'
import { StackBuilder } from './stack-builder.ts'

export interface PnpOptions {
  readonly registry: ServiceRegistry
  readonly rootDevices: readonly RootDevice[]
}

/** Why something was not done. */
export type Refusal = Veto | 'no-such-device' | 'not-started' | 'not-ejectable'

/**
 * The PnP manager: the device tree, and everything that is sent to its stacks. What has to be done is queued and
 * done in one system thread, one thing after the other; only STARTs may overlap (Vista).
 */
export class PnpManager {
  readonly #parts: KernelParts
  readonly #actions: ActionQueue
  readonly #requests: PnpRequests
  readonly #nodes: NodeTable
  readonly #enumeration: Enumeration
  readonly #removal: Removal
  readonly #rebalance: Rebalance
  readonly interfaces: DeviceInterfaces
  #registry: ServiceRegistry
  #bus: RootBus | null
  #root: DeviceNode | null

  constructor(parts: KernelParts, version: WindowsVersion) {
    this.#parts = parts
    this.#registry = { services: [], drivers: [] }
    this.#bus = null
    this.#root = null
    this.#actions = new ActionQueue(parts)
    const requests = new PnpRequests(parts)
    const nodes = new NodeTable(parts, requests)
    const resources = new ResourceAssignment(parts, requests)
    const builder = new StackBuilder(parts)
    const settleStarts = (top: DeviceNode): Waiting<void> => this.#enumeration.settleStarts(top)
    const start = new DeviceStart(version, requests, resources, builder, (node) =>
      this.#actions.queue(() => this.#enumeration.startEnded(node)),
    )
    this.#requests = requests
    this.#nodes = nodes
    this.interfaces = new DeviceInterfaces(parts)
    this.#removal = new Removal({
      nodes,
      requests,
      resources,
      builder,
      interfaces: this.interfaces,
      settleStarts,
      rescan: (node) => this.#actions.queue(() => this.#enumeration.enumerate(node)),
    })
    this.#rebalance = new Rebalance({ requests, resources, start, removal: this.#removal, settleStarts })
    this.#enumeration = new Enumeration({
      kernel: parts,
      version,
      nodes,
      requests,
      identification: new Identification(parts, version, requests),
      resources,
      builder,
      start,
      removal: () => this.#removal,
      registry: () => this.#registry,
      root: () => this.#root as DeviceNode,
    })
    parts.files.forgotten = () => {
      if (this.#removal.waitingCount > 0) this.#actions.queue(() => this.#removal.handlesClosed())
    }
  }

  // What drivers call.

  /** At DISPATCH level or below: returns at once, the bus is asked later. */
  ioInvalidateDeviceRelations(pdo: DeviceObject, type: DeviceRelation = DeviceRelation.BUS): void {
    const node = this.#nodes.nodeOfPdo(pdo)
    if (type === DeviceRelation.BUS || type === DeviceRelation.SINGLE_BUS) {
      this.#actions.queue(() => this.#enumeration.enumerate(node))
    }
  }

  /** At DISPATCH level or below: the stack is asked for its PNP_DEVICE_STATE later. */
  ioInvalidateDeviceState(pdo: DeviceObject): void {
    const node = this.#nodes.nodeOfPdo(pdo)
    this.#actions.queue(() => this.#stateChanged(node))
  }

  *#stateChanged(node: DeviceNode): Waiting<void> {
    yield* this.#enumeration.startEnded(node)
    if (node.state !== 'started' || !(yield* this.#enumeration.queryState(node))) return
    if ((node.deviceState & PnpDeviceState.RESOURCE_REQUIREMENTS_CHANGED) !== 0)
      yield* this.#rebalance.run(node)
  }

  /** IoRequestDeviceEject: at DISPATCH level or below. */
  ioRequestDeviceEject(pdo: DeviceObject): void {
    const node = this.#nodes.nodeOfPdo(pdo)
    this.#actions.queue(() => this.#eject(node))
  }

  // What the machine, and whoever sits before it, asks for. Not to be called by drivers.

  /** Makes the root and finds everything below it; returns once nothing is left to do but pending STARTs. */
  *boot(options: PnpOptions): Waiting {
    if (this.#root !== null) return NtStatus.INVALID_DEVICE_STATE
    const bus = RootBus.create(this.#parts, options.rootDevices)
    if (bus === null) return NtStatus.INSUFFICIENT_RESOURCES
    this.#registry = options.registry
    this.#bus = bus
    const root = this.#nodes.create(bus.rootPdo, null)
    root.instancePath = 'HTREE\\ROOT\\0'
    // Nobody enumerates the root: it is there, and works.
    for (const event of ['identify', 'add', 'start', 'succeed'] as const) root.advance(event)
    this.#root = root
    this.#actions.queue(() => this.#enumeration.enumerate(root))
    yield* this.#actions.settle()
    return NtStatus.SUCCESS
  }

  /** Waits until nothing is left to do. */
  settle(): Waiting<void> {
    return this.#actions.settle()
  }

  /** Asks every bus for its children. */
  *rescan(): Waiting<void> {
    yield* this.#actions.perform(() => this.#rescan())
    yield* this.#actions.settle()
  }
  *#rescan(): Waiting<void> {
    for (const node of this.#root?.subtree().toReversed() ?? []) yield* this.#enumeration.enumerate(node)
  }

  /** Removes a device and everything below it; a rescan brings it back. Null, or who would not have it. */
  removeDevice(instancePath: string): Waiting<Refusal | null> {
    return this.#actions.perform(() => this.#orderly(instancePath, null))
  }
  /** The same, and it stays away until it is enabled. */
  disableDevice(instancePath: string): Waiting<Refusal | null> {
    return this.#actions.perform(() => this.#orderly(instancePath, Problem.DISABLED))
  }
  *#orderly(instancePath: string, problem: Problem | null): Waiting<Refusal | null> {
    const node = this.#find(instancePath)
    if (node === null || node === this.#root) return 'no-such-device'
    yield* this.#enumeration.startEnded(node)
    const held = node.subtree().find((one) => (one.deviceState & PnpDeviceState.NOT_DISABLEABLE) !== 0)
    if (held !== undefined)
      return { instancePath: held.instancePath, reason: 'not-disableable', status: null }
    if (node.state === 'started') return yield* this.#removal.orderly(node, { problem })
    if (node.state !== 'identified') return 'not-started'
    if (node.problem !== Problem.DRIVER_FAILED_PRIOR_UNLOAD) node.problem = problem
    return null
  }

  /** Tries again to bring up a device that has a problem or was disabled. */
  enableDevice(instancePath: string): Waiting<Refusal | null> {
    return this.#actions.perform(() => this.#enable(instancePath))
  }
  *#enable(instancePath: string): Waiting<Refusal | null> {
    const node = this.#find(instancePath)
    if (node === null) return 'no-such-device'
    if (node.state !== 'identified' || node.problem === Problem.DRIVER_FAILED_PRIOR_UNLOAD)
      return 'not-started'
    node.problem = null
    yield* this.#enumeration.bringUp(node)
    return null
  }

  /** Stops a device and what is below, assigns resources anew, starts them again. */
  rebalance(instancePath: string): Waiting<Refusal | null> {
    return this.#actions.perform(() => this.#rebalanced(instancePath))
  }
  *#rebalanced(instancePath: string): Waiting<Refusal | null> {
    const node = this.#find(instancePath)
    if (node === null) return 'no-such-device'
    yield* this.#enumeration.startEnded(node)
    return node.state === 'started' ? yield* this.#rebalance.run(node) : 'not-started'
  }

  /** Removes a device with those that leave with it, and has its bus put it out. */
  ejectDevice(instancePath: string): Waiting<Refusal | null> {
    const eject = this.#actions.perform(() => {
      const node = this.#find(instancePath)
      return node === null ? refused('no-such-device') : this.#eject(node)
    })
    return eject
  }
  *#eject(node: DeviceNode): Waiting<Refusal | null> {
    yield* this.#enumeration.startEnded(node)
    if (node.state !== 'started') return 'not-started'
    if (((node.identity?.capabilities ?? 0) & CapabilityFlag.EJECT_SUPPORTED) === 0) return 'not-ejectable'
    const veto = yield* this.#removal.orderly(
      node,
      { problem: Problem.HELD_FOR_EJECT },
      DeviceRelation.EJECTION,
    )
    if (veto !== null) return veto
    if (node.problem === Problem.HELD_FOR_EJECT) yield* this.#requests.send(node.pdo, PnpMinor.EJECT)
    if (node.parent !== null) yield* this.#enumeration.enumerate(node.parent)
    return null
  }

  /** A file of that use comes to lie on the device, or leaves it: its stack may refuse (`DeviceUsage`). */
  notifyUsage(instancePath: string, usage: number, inPath: boolean): Waiting<Refusal | NtStatus> {
    return this.#actions.perform(() =>
      this.#ask(instancePath, PnpMinor.DEVICE_USAGE_NOTIFICATION, inPath ? 1 : 0, usage),
    )
  }
  /** Keeps the device from being taken out, or lets it. */
  lockDevice(instancePath: string, locked: boolean): Waiting<Refusal | NtStatus> {
    return this.#actions.perform(() => this.#ask(instancePath, PnpMinor.SET_LOCK, locked ? 1 : 0))
  }
  *#ask(
    instancePath: string,
    minor: PnpMinor,
    argument1: number,
    argument2 = 0,
  ): Waiting<Refusal | NtStatus> {
    const node = this.#find(instancePath)
    if (node === null) return 'no-such-device'
    yield* this.#enumeration.startEnded(node)
    if (node.state !== 'started') return 'not-started'
    return (yield* this.#requests.send(node.pdo, minor, argument1, argument2)).status
  }

  /** Removes everything, the root last. A veto leaves what is left. */
  shutDown(): Waiting<Veto | null> {
    return this.#actions.perform(() => this.#shutDown())
  }
  *#shutDown(): Waiting<Veto | null> {
    const root = this.#root
    if (root === null) return null
    const veto = yield* this.#removal.orderly(root, 'discard')
    if (veto !== null) return veto
    this.#root = null
    this.#bus?.delete()
    this.#bus = null
    return null
  }

  /** Device ID and instance of a PDO that was found: `ACPI\LNRO0005\00`. */
  pathOf(pdo: DeviceObject): string {
    return this.#nodes.nodeOfPdo(pdo).instancePath
  }

  /** The tree as Device Manager shows it; null before `boot`. */
  tree(): DeviceView | null {
    return this.#root === null ? null : viewOf(this.#root)
  }

  #find(instancePath: string): DeviceNode | null {
    const path = instancePath.toUpperCase()
    const found = this.#root
      ?.subtree()
      .find((node) => !node.isLeaving && node.instancePath.toUpperCase() === path)
    return found ?? null
  }
}

// biome-ignore lint/correctness/useYield: an action that only answers.
function* refused(refusal: Refusal): Waiting<Refusal> {
  return refusal
}
