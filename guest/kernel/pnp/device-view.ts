import type { DeviceNode } from './device-node.ts'
import type { NodeState } from './node-state.ts'
import { PnpDeviceState } from './pnp-minor.ts'
import { type Problem, problemText } from './problem.ts'
import type { Resource } from './resource-list.ts'

/** A device as Device Manager shows it: plain data. */
export interface DeviceView {
  /** What its driver package or its bus calls it. */
  readonly name: string
  readonly instancePath: string
  readonly hardwareIds: readonly string[]
  readonly location: string | null
  /** INTERFACE_TYPE of its bus; null when its bus driver did not say. */
  readonly busType: number | null
  readonly className: string | null
  /** Service of its function driver; null: none. */
  readonly driver: string | null
  /** Services of its stack, from the PDO upwards. */
  readonly stack: readonly string[]
  readonly status: 'working' | 'starting' | 'stopped' | 'being removed' | 'not started' | 'problem'
  readonly problem: { readonly code: Problem; readonly text: string } | null
  /** Its drivers ask that it is not shown. */
  readonly hidden: boolean
  readonly resources: readonly Resource[]
  readonly children: readonly DeviceView[]
}

export function viewOf(node: DeviceNode): DeviceView {
  const { identity, plan, problem } = node
  const deviceId = identity?.deviceId ?? ''
  return {
    name: plan?.match.description ?? identity?.description ?? (deviceId === '' ? 'unknown device' : deviceId),
    instancePath: node.instancePath,
    hardwareIds: identity?.hardwareIds ?? [],
    location: identity?.location ?? null,
    busType: identity?.busType ?? null,
    className: plan?.match.className ?? null,
    driver: plan?.match.service ?? null,
    stack: node.services,
    status: problem === null ? STATUS[node.state] : 'problem',
    problem: problem === null ? null : { code: problem, text: problemText(problem) },
    hidden: (node.deviceState & PnpDeviceState.DONT_DISPLAY_IN_UI) !== 0,
    resources: node.resources,
    children: node.children.map(viewOf),
  }
}

const STATUS: { readonly [state in NodeState]: DeviceView['status'] } = {
  new: 'not started',
  identified: 'not started',
  'not-started': 'not started',
  starting: 'starting',
  failed: 'not started',
  started: 'working',
  'stop-pending': 'stopped',
  stopped: 'stopped',
  restarting: 'starting',
  'restart-failed': 'stopped',
  'remove-pending': 'being removed',
  'surprise-removed': 'being removed',
  removed: 'being removed',
  deleted: 'being removed',
}
