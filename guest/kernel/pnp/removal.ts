import { DeviceExtensionFlag } from '../io-layout.ts'
import { type NtStatus, ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import type { DeviceInterfaces } from './device-interface.ts'
import type { DeviceNode } from './device-node.ts'
import { mayBeSurprised } from './node-state.ts'
import type { NodeTable } from './node-table.ts'
import { DeviceRelation, PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'
import { Problem } from './problem.ts'
import type { ResourceAssignment } from './resource-assignment.ts'
import type { StackBuilder } from './stack-builder.ts'

/** Who kept devices from being removed or stopped, and why. */
export interface Veto {
  readonly instancePath: string
  readonly reason: 'driver' | 'open-handles' | 'not-disableable'
  readonly status: NtStatus | null
}

/** Devices that are removed together: REMOVE goes to all of them once no file is open on any. */
interface RemovalBatch {
  /** Children before their parents. */
  readonly nodes: readonly DeviceNode[]
  /** Nodes that stay in the tree if their PDO does, with the problem they then have. */
  readonly kept: ReadonlyMap<DeviceNode, Problem | null>
}

export interface RemovalParts {
  readonly nodes: NodeTable
  readonly requests: PnpRequests
  readonly resources: ResourceAssignment
  readonly builder: StackBuilder
  readonly interfaces: DeviceInterfaces
  /** Waits for STARTs under way at the node and below, with what follows from them. */
  readonly settleStarts: (top: DeviceNode) => Waiting<void>
  /** The bus may still list a PDO whose node is gone. */
  readonly rescan: (node: DeviceNode) => void
}

/** Orderly removal, surprise removal, and what comes after both. */
export class Removal {
  readonly #parts: RemovalParts
  /** Surprise-removed devices on which a file is open. */
  #waiting: RemovalBatch[]

  constructor(parts: RemovalParts) {
    this.#parts = parts
    this.#waiting = []
  }

  /** Batches that wait for handles to be closed. */
  get waitingCount(): number {
    return this.#waiting.length
  }

  /**
   * Asks everybody, then removes. With a veto, those who had agreed are told, and everything is as before.
   * `after`: the problem the node then has, as long as its bus lists it; or it is taken out of the tree.
   */
  *orderly(
    top: DeviceNode,
    after: { readonly problem: Problem | null } | 'discard',
    relation: DeviceRelation = DeviceRelation.REMOVAL,
  ): Waiting<Veto | null> {
    const nodes = yield* this.#related(top, relation)
    const veto = yield* this.#ask(nodes)
    if (veto !== null) return veto
    yield* this.#remove({ nodes, kept: new Map(after === 'discard' ? [] : [[top, after.problem]]) })
    return null
  }

  /** The device, and with it everything below, is gone or does not work: its drivers are told, nobody is asked. */
  *surprise(top: DeviceNode, problem: Problem | null): Waiting<void> {
    yield* this.#parts.settleStarts(top)
    if (top.state === 'deleted') return
    const nodes = top.subtree()
    for (const node of nodes) {
      if (!mayBeSurprised(node.state)) continue
      node.advance('surprise-remove')
      this.#parts.builder.mark(node, DeviceExtensionFlag.REMOVE_PENDING, true)
      yield* this.#parts.requests.send(node.pdo, PnpMinor.SURPRISE_REMOVAL)
      this.#parts.interfaces.disableOf(node.pdo)
      // Drivers have let go of the hardware by now: a successor need not wait for the last handle.
      this.#parts.resources.release(node)
    }
    yield* this.#removeOnceClosed({ nodes, kept: new Map(problem === null ? [] : [[top, problem]]) })
  }

  /** A stack that was built and never started: REMOVE is all it hears. */
  *tearDown(node: DeviceNode, problem: Problem): Waiting<void> {
    yield* this.#removeOnceClosed({ nodes: [node], kept: new Map([[node, problem]]) })
  }

  /** A file was closed: what waited for it may go on. */
  *handlesClosed(): Waiting<void> {
    const batches = this.#waiting
    this.#waiting = []
    for (const batch of batches) yield* this.#removeOnceClosed(batch)
  }

  /** The device, what it takes with it, and everything below: children before parents. */
  *#related(top: DeviceNode, relation: DeviceRelation): Waiting<DeviceNode[]> {
    const found = new Set<DeviceNode>()
    const tops = [top]
    for (let next = tops.pop(); next !== undefined; next = tops.pop()) {
      yield* this.#parts.settleStarts(next)
      for (const node of next.state === 'deleted' ? [] : next.subtree()) {
        if (found.has(node)) continue
        found.add(node)
        if (node.state !== 'started') continue
        tops.push(...(yield* this.#parts.nodes.relatedNodes(node, DeviceRelation.REMOVAL)))
        if (node === top && relation !== DeviceRelation.REMOVAL) {
          tops.push(...(yield* this.#parts.nodes.relatedNodes(node, relation)))
        }
      }
    }
    // The root of all is never removed because of a relation.
    return [...found].filter((node) => node.parent !== null || node === top).sort((a, b) => b.depth - a.depth)
  }

  *#ask(nodes: readonly DeviceNode[]): Waiting<Veto | null> {
    const { requests, builder } = this.#parts
    const asked: DeviceNode[] = []
    let veto: Veto | null = null
    for (const node of nodes) {
      if (node.state !== 'started') continue
      asked.push(node)
      const { status } = yield* requests.send(node.pdo, PnpMinor.QUERY_REMOVE_DEVICE)
      if (!ntSuccess(status)) {
        veto = { instancePath: node.instancePath, reason: 'driver', status }
        break
      }
      node.advance('query-remove')
      builder.mark(node, DeviceExtensionFlag.REMOVE_PENDING, true)
    }
    if (veto === null) {
      const open = nodes.find((node) => builder.isOpen(node))
      if (open === undefined) return null
      veto = { instancePath: open.instancePath, reason: 'open-handles', status: null }
    }
    yield* this.#cancel(asked)
    return veto
  }

  /** Parents first. Of the stack that refused, drivers above the one that did had agreed. */
  *#cancel(asked: readonly DeviceNode[]): Waiting<void> {
    const { requests, builder } = this.#parts
    for (const node of asked.toReversed()) {
      yield* requests.send(node.pdo, PnpMinor.CANCEL_REMOVE_DEVICE)
      if (node.state !== 'remove-pending') continue
      node.advance('cancel-remove')
      builder.mark(node, DeviceExtensionFlag.REMOVE_PENDING, false)
    }
  }

  *#removeOnceClosed(batch: RemovalBatch): Waiting<void> {
    // Whoever waits below this one goes with it.
    const joined = this.#waiting.filter((other) => other.nodes.some((node) => batch.nodes.includes(node)))
    this.#waiting = this.#waiting.filter((other) => !joined.includes(other))
    const all = [batch, ...joined]
    const nodes = [...new Set(all.flatMap((one) => one.nodes))].sort((a, b) => b.depth - a.depth)
    const whole = { nodes, kept: new Map(all.flatMap((one) => [...one.kept])) }
    if (nodes.some((node) => this.#parts.builder.isOpen(node))) this.#waiting.push(whole)
    else yield* this.#remove(whole)
  }

  *#remove({ nodes, kept }: RemovalBatch): Waiting<void> {
    const { builder, requests, resources } = this.#parts
    const stuck = new Set<DeviceNode>()
    // Closed a moment ago: what waited goes with this.
    this.#waiting = this.#waiting.filter((other) => !other.nodes.some((node) => nodes.includes(node)))
    for (const node of nodes) {
      node.advance('remove')
      yield* requests.send(node.pdo, PnpMinor.REMOVE_DEVICE)
      this.#parts.interfaces.disableOf(node.pdo)
      if (node.pdo.attachedDevice !== 0) stuck.add(node)
      builder.mark(node, DeviceExtensionFlag.REMOVE_PENDING | DeviceExtensionFlag.START_PENDING, false)
      resources.release(node)
      yield* builder.release(node)
    }
    for (const node of nodes) {
      const stays = kept.has(node) && !node.pdo.deleted && !nodes.includes(node.parent as DeviceNode)
      if (stays) {
        node.problem = stuck.has(node) ? Problem.DRIVER_FAILED_PRIOR_UNLOAD : (kept.get(node) ?? null)
        node.deviceState = 0
        node.advance('reset')
      } else this.#discard(node)
    }
  }

  #discard(node: DeviceNode): void {
    const { parent, pdo } = node
    const kept = !pdo.deleted
    this.#parts.nodes.discard(node)
    if (kept && parent?.state === 'started') this.#parts.rescan(parent)
  }
}
