import { ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import type { DeviceNode } from './device-node.ts'
import type { DeviceStart } from './device-start.ts'
import { PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'
import type { Removal, Veto } from './removal.ts'
import type { ResourceAssignment } from './resource-assignment.ts'

export interface RebalanceParts {
  readonly requests: PnpRequests
  readonly resources: ResourceAssignment
  readonly start: DeviceStart
  readonly removal: Removal
  readonly settleStarts: (top: DeviceNode) => Waiting<void>
}

/** Stops a device with everything below, assigns resources anew, and starts it again. */
export class Rebalance {
  readonly #parts: RebalanceParts

  constructor(parts: RebalanceParts) {
    this.#parts = parts
  }

  *run(top: DeviceNode): Waiting<Veto | null> {
    const { requests, resources } = this.#parts
    yield* this.#parts.settleStarts(top)
    const nodes = top.subtree().filter((node) => node.state === 'started')
    const veto = yield* this.#ask(nodes)
    if (veto !== null) return veto
    for (const node of nodes) {
      node.advance('stop')
      yield* requests.send(node.pdo, PnpMinor.STOP_DEVICE)
      resources.release(node)
    }
    for (const node of nodes.toReversed()) yield* this.#restart(node)
    return null
  }

  *#ask(nodes: readonly DeviceNode[]): Waiting<Veto | null> {
    const { requests } = this.#parts
    for (const [index, node] of nodes.entries()) {
      const { status } = yield* requests.send(node.pdo, PnpMinor.QUERY_STOP_DEVICE)
      if (ntSuccess(status)) {
        node.advance('query-stop')
        continue
      }
      // In the stack that refused, the drivers above the one that did had agreed.
      for (const asked of nodes.slice(0, index + 1).toReversed()) {
        yield* requests.send(asked.pdo, PnpMinor.CANCEL_STOP_DEVICE)
        if (asked.state === 'stop-pending') asked.advance('cancel-stop')
      }
      return { instancePath: node.instancePath, reason: 'driver', status }
    }
    return null
  }

  /** A device that does not start again is gone for its drivers, with everything below it. */
  *#restart(node: DeviceNode): Waiting<void> {
    const { resources, start, removal } = this.#parts
    if (node.state !== 'stopped') return
    yield* resources.query(node)
    let outcome = yield* start.begin(node)
    if (outcome === 'pending') outcome = yield* start.complete(node)
    if (outcome !== 'started') {
      // What is below has stopped too; a node that lost its resources never began to start.
      yield* removal.surprise(node, outcome)
    }
  }
}
