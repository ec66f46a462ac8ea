import { BugCode, keBugCheckEx } from '../bug-check.ts'
import type { DeviceObject } from '../device-object.ts'
import { DeviceFlag } from '../io-layout.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus, ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import { DeviceNode } from './device-node.ts'
import { readRelations } from './device-relations.ts'
import { PnpFatal } from './pnp-fatal.ts'
import { type DeviceRelation, PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'

/** What a stack answered to QUERY_DEVICE_RELATIONS: one reference is held for each device. */
export type RelationsAnswer = readonly DeviceObject[] | 'none' | 'malformed' | 'no-memory'

/** The nodes, by their PDOs, and the lists of PDOs that stacks hand over. */
export class NodeTable {
  readonly #parts: KernelParts
  readonly #requests: PnpRequests

  constructor(parts: KernelParts, requests: PnpRequests) {
    this.#parts = parts
    this.#requests = requests
  }

  /** The node of a PDO, or null. */
  nodeOf(pdo: DeviceObject): DeviceNode | null {
    return pdo.deviceNode === 0 ? null : this.#parts.contexts.get<DeviceNode>(pdo.deviceNode)
  }

  /** The node of a device that must be a PDO. */
  nodeOfPdo(pdo: DeviceObject): DeviceNode {
    return this.nodeOf(pdo) ?? keBugCheckEx(BugCode.PNP_DETECTED_FATAL_ERROR, PnpFatal.NOT_A_PDO, pdo.at)
  }

  /** A node for a PDO that was reported; the report's reference becomes the node's. */
  create(pdo: DeviceObject, parent: DeviceNode | null): DeviceNode {
    const node = new DeviceNode(pdo, parent, (made) => this.#parts.contexts.hold(made))
    pdo.deviceNode = node.context
    pdo.flags |= DeviceFlag.BUS_ENUMERATED_DEVICE
    parent?.children.push(node)
    return node
  }

  /** Takes a node whose stack is gone out of the tree and lets its PDO go. */
  discard(node: DeviceNode): void {
    const { contexts, devices } = this.#parts
    const { pdo, parent } = node
    node.advance('delete')
    const at = parent?.children.indexOf(node) ?? -1
    if (at >= 0) parent?.children.splice(at, 1)
    pdo.deviceNode = 0
    contexts.release(node.context)
    devices.dereference(pdo)
  }

  /** Asks a stack for related devices. What is no PDO in the list stops the system. */
  *relations(node: DeviceNode, type: DeviceRelation): Waiting<RelationsAnswer> {
    const { hal, pool } = this.#parts
    const { status, information } = yield* this.#requests.send(
      node.pdo,
      PnpMinor.QUERY_DEVICE_RELATIONS,
      type,
    )
    if (status === NtStatus.INSUFFICIENT_RESOURCES) return 'no-memory'
    if (!ntSuccess(status)) return 'none'
    const listed = readRelations(this.#parts, information)
    if (information !== 0 && pool.owns(information)) pool.free(information, hal.irql)
    return listed === null ? 'malformed' : listed.map((at) => this.#reported(at))
  }

  #reported(at: number): DeviceObject {
    if (at === 0) return keBugCheckEx(BugCode.PNP_DETECTED_FATAL_ERROR, PnpFatal.NULL_PDO)
    const device = this.#parts.devices.find(at)
    // Whatever stands on another device is no PDO.
    if (device === null || device.attachedTo !== 0) {
      return keBugCheckEx(BugCode.PNP_DETECTED_FATAL_ERROR, PnpFatal.NOT_A_PDO, at)
    }
    if (device.deleted) keBugCheckEx(BugCode.PNP_DETECTED_FATAL_ERROR, PnpFatal.DELETED_PDO, at)
    return device
  }

  /** The nodes of related devices; their references are let go. */
  *relatedNodes(node: DeviceNode, type: DeviceRelation): Waiting<DeviceNode[]> {
    const answer = yield* this.relations(node, type)
    if (typeof answer === 'string') return []
    const nodes = answer.map((device) => this.nodeOf(device)).filter((one) => one !== null)
    for (const device of answer) this.#parts.devices.dereference(device)
    return nodes
  }
}
