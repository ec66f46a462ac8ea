import type { DeviceObject } from '../device-object.ts'
import { NODE_TRANSITIONS, type NodeEvent, type NodeState } from './node-state.ts'
import type { PnpCall } from './pnp-request.ts'
import type { Problem } from './problem.ts'
import type { Resource } from './resource-list.ts'
import type { RequirementLists } from './resource-requirements.ts'
import type { StackPlan } from './service-registry.ts'

/** Who a device is, as its bus driver told. */
export interface NodeIdentity {
  readonly deviceId: string
  readonly hardwareIds: readonly string[]
  readonly compatibleIds: readonly string[]
  readonly containerId: string | null
  readonly description: string | null
  readonly location: string | null
  /** CapabilityFlag bits. */
  readonly capabilities: number
  readonly address: number
  /** INTERFACE_TYPE of the bus it is on; null when its bus driver did not say. */
  readonly busType: number | null
}

/** A devnode: one device of the tree, whatever its drivers. */
export class DeviceNode {
  readonly pdo: DeviceObject
  readonly parent: DeviceNode | null
  readonly depth: number
  readonly children: DeviceNode[]
  /** Number that stands for this node in the PDO's extension. */
  readonly context: number
  #state: NodeState
  problem: Problem | null
  identity: NodeIdentity | null
  /** Device ID and unique instance: `ACPI\LNRO0005\00`. */
  instancePath: string
  plan: StackPlan | null
  /** Services whose drivers were asked to add the device. */
  services: readonly string[]
  /** Raw: what the device decoded when it was found, and what its PDO asks for (null: neither could be read). */
  bootResources: readonly Resource[] | null
  requirements: RequirementLists | null
  /** Raw, while the device holds them. */
  resources: readonly Resource[]
  /** START's lists, while it is under way. */
  startLists: readonly number[]
  /** PnpDeviceState bits. */
  deviceState: number
  /** The bus listed it the last time it was asked. */
  present: boolean
  /** START under way that was answered PENDING. */
  start: PnpCall | null

  constructor(pdo: DeviceObject, parent: DeviceNode | null, hold: (node: DeviceNode) => number) {
    this.pdo = pdo
    this.parent = parent
    this.depth = parent === null ? 0 : parent.depth + 1
    this.children = []
    this.#state = 'new'
    this.problem = null
    this.identity = null
    this.instancePath = ''
    this.plan = null
    this.services = []
    this.bootResources = []
    this.requirements = []
    this.resources = []
    this.startLists = []
    this.deviceState = 0
    this.present = true
    this.start = null
    this.context = hold(this)
  }

  get state(): NodeState {
    return this.#state
  }

  /** @throws when the step is not in the table: our own mistake. */
  advance(event: NodeEvent): void {
    const next = NODE_TRANSITIONS[this.#state][event]
    if (next === undefined) throw new Error(`${this.instancePath}: ${event} while ${this.#state}`)
    this.#state = next
  }

  /** It, or a bus it is on, is gone, and only waits for files to be closed: its successor may have its path. */
  get isLeaving(): boolean {
    return this.#state === 'surprise-removed' || this.parent?.isLeaving === true
  }

  /** This node and everything below it, children before their parents. */
  subtree(): DeviceNode[] {
    const found: DeviceNode[] = []
    for (const child of this.children) found.push(...child.subtree())
    found.push(this)
    return found
  }
}
