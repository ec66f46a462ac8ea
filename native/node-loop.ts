import { isMainThread } from 'node:worker_threads'
import { ffi, nativeAbsent } from './platform.ts'

/** Node's own event loop, for a thread that waits elsewhere and has to let it run now and then. */
export interface NodeLoop {
  /** Readable when something of Node's own is: a signal, a pipe, a result of its thread pool. */
  readonly number: number
  /** Milliseconds until Node's next timer; 0 when it has something to do now, negative without a timer. */
  timeoutMs(): number
}

let found: NodeLoop | string | null = null

/** Node's loop, or in one line why it cannot be reached. */
export function nodeLoop(): NodeLoop | string {
  found ??= nativeAbsent() ?? bind()
  return found
}

function bind(): NodeLoop | string {
  if (!isMainThread) return "a worker's event loop cannot be reached"
  try {
    const node = ffi().load(null)
    const loop: unknown = node.func('void *uv_default_loop()')()
    const timeout = node.func('int uv_backend_timeout(void *)')
    const number = Number(node.func('int uv_backend_fd(void *)')(loop))
    if (!(number >= 0)) return `libuv has no descriptor of its own here: ${number}`
    return { number, timeoutMs: () => Number(timeout(loop)) }
  } catch (problem) {
    return `libuv cannot be reached in this node: ${problem instanceof Error ? problem.message : problem}`
  }
}
