/**
 * Where a device is in its life. `failed` and `restart-failed`: START was refused, and the stack waits to be told.
 * `removed`: its stack is gone, its PDO is not.
 */
export type NodeState =
  | 'new'
  | 'identified'
  | 'not-started'
  | 'starting'
  | 'failed'
  | 'started'
  | 'stop-pending'
  | 'stopped'
  | 'restarting'
  | 'restart-failed'
  | 'remove-pending'
  | 'surprise-removed'
  | 'removed'
  | 'deleted'

export type NodeEvent =
  | 'identify'
  | 'add'
  | 'start'
  | 'succeed'
  | 'fail'
  | 'query-stop'
  | 'stop'
  | 'cancel-stop'
  | 'query-remove'
  | 'cancel-remove'
  | 'surprise-remove'
  | 'remove'
  | 'reset'
  | 'delete'

type Transitions = { readonly [event in NodeEvent]?: NodeState }

/** Every legal step; what is not here must not happen. */
export const NODE_TRANSITIONS: { readonly [state in NodeState]: Transitions } = {
  new: { identify: 'identified', remove: 'removed' },
  identified: { add: 'not-started', remove: 'removed' },
  'not-started': { start: 'starting', remove: 'removed' },
  starting: { succeed: 'started', fail: 'failed' },
  failed: { remove: 'removed' },
  started: {
    'query-stop': 'stop-pending',
    'query-remove': 'remove-pending',
    'surprise-remove': 'surprise-removed',
  },
  'stop-pending': { stop: 'stopped', 'cancel-stop': 'started', 'surprise-remove': 'surprise-removed' },
  stopped: { start: 'restarting', 'surprise-remove': 'surprise-removed' },
  restarting: { succeed: 'started', fail: 'restart-failed' },
  'restart-failed': { 'surprise-remove': 'surprise-removed' },
  'remove-pending': {
    remove: 'removed',
    'cancel-remove': 'started',
    'surprise-remove': 'surprise-removed',
  },
  'surprise-removed': { remove: 'removed' },
  removed: { reset: 'identified', delete: 'deleted' },
  deleted: {},
}

/** States whose drivers think the device is there and have to hear of its surprise removal. */
export function mayBeSurprised(state: NodeState): boolean {
  return NODE_TRANSITIONS[state]['surprise-remove'] !== undefined
}
