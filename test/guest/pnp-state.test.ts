import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { DeviceNode } from '../../guest/kernel/pnp/device-node.ts'
import {
  mayBeSurprised,
  NODE_TRANSITIONS,
  type NodeEvent,
  type NodeState,
} from '../../guest/kernel/pnp/node-state.ts'

/** windows-io.md 2.5 line by line, with the steps before drivers and after REMOVE around it. */
const LEGAL = `
new --identify--> identified
new --remove--> removed
identified --add--> not-started
identified --remove--> removed
not-started --start--> starting
not-started --remove--> removed
starting --succeed--> started
starting --fail--> failed
failed --remove--> removed
started --query-stop--> stop-pending
started --query-remove--> remove-pending
started --surprise-remove--> surprise-removed
stop-pending --stop--> stopped
stop-pending --cancel-stop--> started
stop-pending --surprise-remove--> surprise-removed
stopped --start--> restarting
stopped --surprise-remove--> surprise-removed
restarting --succeed--> started
restarting --fail--> restart-failed
restart-failed --surprise-remove--> surprise-removed
remove-pending --remove--> removed
remove-pending --cancel-remove--> started
remove-pending --surprise-remove--> surprise-removed
surprise-removed --remove--> removed
removed --reset--> identified
removed --delete--> deleted
`
  .trim()
  .split('\n')
  .map((line) => /^(\S+) --(\S+)--> (\S+)$/.exec(line)?.slice(1) as [NodeState, NodeEvent, NodeState])

const EVENTS = [...new Set(LEGAL.map(([, event]) => event))]
const STATES = Object.keys(NODE_TRANSITIONS) as NodeState[]

/** The events that lead from `new` to a state. */
function wayTo(target: NodeState): NodeEvent[] {
  const ways = new Map<NodeState, NodeEvent[]>([['new', []]])
  for (const [state, way] of ways) {
    for (const [from, event, to] of LEGAL) if (from === state && !ways.has(to)) ways.set(to, [...way, event])
  }
  return ways.get(target) as NodeEvent[]
}

function nodeIn(state: NodeState): DeviceNode {
  const node = new DeviceNode(null as unknown as DeviceObject, null, () => 0)
  for (const event of wayTo(state)) node.advance(event)
  expect(node.state).toBe(state)
  return node
}

describe('a device node', () => {
  it('takes every legal step and refuses every other', () => {
    for (const state of STATES) {
      for (const event of EVENTS) {
        const node = nodeIn(state)
        const legal = LEGAL.find(([from, one]) => from === state && one === event)
        if (legal === undefined) {
          expect(() => node.advance(event), `${state} ${event}`).toThrow()
          expect(node.state).toBe(state)
        } else {
          node.advance(event)
          expect(node.state).toBe(legal[2])
        }
      }
    }
  })

  it('hears of its surprise removal exactly where its drivers think that it is there', () => {
    expect(STATES.filter(mayBeSurprised).sort()).toEqual(
      ['started', 'stop-pending', 'stopped', 'restart-failed', 'remove-pending'].sort(),
    )
  })
})
