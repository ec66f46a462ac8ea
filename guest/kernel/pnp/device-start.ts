import { DeviceExtensionFlag } from '../io-layout.ts'
import { ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import type { WindowsVersion } from '../version.ts'
import type { DeviceNode } from './device-node.ts'
import { PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'
import { Problem } from './problem.ts'
import type { ResourceAssignment } from './resource-assignment.ts'
import type { StackBuilder } from './stack-builder.ts'

/** `pending`: START was answered PENDING, and `startEnded` will be told. */
export type StartOutcome = 'started' | 'pending' | Problem

/** START_DEVICE, with what comes before it and what it leaves. */
export class DeviceStart {
  readonly #version: WindowsVersion
  readonly #requests: PnpRequests
  readonly #resources: ResourceAssignment
  readonly #builder: StackBuilder
  /** A START that was pending is done: at DISPATCH level or below. */
  readonly #startEnded: (node: DeviceNode) => void

  constructor(
    version: WindowsVersion,
    requests: PnpRequests,
    resources: ResourceAssignment,
    builder: StackBuilder,
    startEnded: (node: DeviceNode) => void,
  ) {
    this.#version = version
    this.#requests = requests
    this.#resources = resources
    this.#builder = builder
    this.#startEnded = startEnded
  }

  /** Assigns resources and sends START. Before Vista one START is over before the next begins. */
  *begin(node: DeviceNode): Waiting<StartOutcome> {
    const conflict = yield* this.#resources.assign(node)
    if (conflict !== null) return conflict
    const lists = this.#resources.startLists(node)
    if (typeof lists === 'number') return lists
    node.advance('start')
    this.#builder.mark(node, DeviceExtensionFlag.START_PENDING, true)
    const [raw = 0, translated = 0] = lists
    node.startLists = lists
    node.start = yield* this.#requests.begin(node.pdo, PnpMinor.START_DEVICE, raw, translated)
    if (node.start !== null && !node.start.done && this.#version.asynchronousStart) {
      node.start.whenDone = () => this.#startEnded(node)
      return 'pending'
    }
    return yield* this.complete(node)
  }

  /** Waits for the node's START and takes its answer. */
  *complete(node: DeviceNode): Waiting<'started' | Problem> {
    const { start, startLists } = node
    if (start !== null) start.whenDone = null
    const answer = start === null ? null : yield* this.#requests.finish(start)
    node.start = null
    node.startLists = []
    this.#resources.free(startLists)
    if (answer === null || !ntSuccess(answer.status)) {
      node.advance('fail')
      return answer === null ? Problem.OUT_OF_MEMORY : Problem.FAILED_START
    }
    node.advance('succeed')
    this.#builder.mark(node, DeviceExtensionFlag.START_PENDING, false)
    return 'started'
  }
}
