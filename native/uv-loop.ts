import { isMainThread } from 'node:worker_threads'
import type { Descriptor } from './descriptor.ts'
import type { EdgeLoop, LoopWork, Watch } from './edge-loop.ts'
import { ffi, nativeAbsent } from './platform.ts'
import { Scratch } from './scratch.ts'

const UV_POLL = 8
const UV_READABLE = 1
const UV_DISCONNECT = 4
const HANDLES_PER_SCRATCH = 64

interface Uv {
  readonly loop: unknown
  readonly handleBytes: number
  readonly init: (loop: unknown, handle: number, descriptor: number) => number
  readonly start: (handle: number, events: number, callback: bigint) => number
  readonly close: (handle: number, callback: bigint) => void
  readonly polled: bigint
  readonly closed: bigint
}

/** Handles belong to libuv until it says that they are closed: so they lie where no collector reaches. */
const free: number[] = []
const watches = new Map<number, UvWatch>()
let bound: Uv | string | null = null

/** Why descriptors cannot be watched in Node's own loop; null when they can. */
export function uvAbsent(): string | null {
  const uv = look()
  return typeof uv === 'string' ? uv : null
}

function look(): Uv | string {
  bound ??= nativeAbsent() ?? bind()
  return bound
}

function bind(): Uv | string {
  // A worker has a loop of its own, which nothing exported leads to.
  if (!isMainThread) return "a worker's event loop cannot be reached"
  const { load, proto, pointer, register } = ffi()
  try {
    const node = load(null)
    const polled = pointer(proto('void PolledDescriptor(int64 handle, int status, int events)'))
    const closed = pointer(proto('void ClosedHandle(int64 handle)'))
    return {
      loop: node.func('void *uv_default_loop()')(),
      handleBytes: Number(node.func('size_t uv_handle_size(int)')(UV_POLL)),
      init: node.func('int uv_poll_init(void *, int64, int)'),
      start: node.func('int uv_poll_start(int64, int, int64)'),
      close: node.func('void uv_close(int64, int64)'),
      polled: register((handle: bigint | number) => watches.get(Number(handle))?.ready(), polled),
      closed: register((handle: bigint | number) => free.push(Number(handle)), closed),
    }
  } catch (problem) {
    return `libuv cannot be reached in this node: ${problem instanceof Error ? problem.message : problem}`
  }
}

function newHandle(uv: Uv): number {
  if (free.length === 0) {
    const { address } = new Scratch(HANDLES_PER_SCRATCH * uv.handleBytes)
    for (let i = 0; i < HANDLES_PER_SCRATCH; i++) free.push(address + i * uv.handleBytes)
  }
  return free.pop() as number
}

class UvWatch implements Watch {
  readonly #uv: Uv
  readonly #handle: number
  readonly #unpin: () => void
  readonly #ready: () => void
  #open: boolean

  constructor(uv: Uv, descriptor: Descriptor, ready: () => void) {
    this.#uv = uv
    this.#ready = ready
    this.#open = true
    this.#handle = newHandle(uv)
    const failed = uv.init(uv.loop, this.#handle, descriptor.number)
    if (failed < 0) {
      free.push(this.#handle)
      throw new Error(`uv_poll_init says ${failed}: a descriptor of this kind cannot be watched`)
    }
    this.#unpin = descriptor.pin()
    watches.set(this.#handle, this)
    uv.start(this.#handle, UV_READABLE | UV_DISCONNECT, uv.polled)
  }

  ready(): void {
    this.#ready()
  }

  close(): void {
    if (!this.#open) throw new Error('a watch is closed twice')
    this.#open = false
    watches.delete(this.#handle)
    this.#unpin()
    // It stops polling at once; the handle's memory comes back with the callback.
    this.#uv.close(this.#handle, this.#uv.closed)
  }

  [Symbol.dispose](): void {
    if (this.#open) this.close()
  }
}

/**
 * Descriptors in Node's own event loop, for stacks with a layer that answers later: files read through callbacks,
 * timers, sockets and promises of everybody else go on between two turns.
 */
export class UvLoop implements EdgeLoop {
  readonly description = "Node's event loop"
  readonly #uv: Uv
  readonly #watches: Set<UvWatch>
  #work: LoopWork | null
  #timer: NodeJS.Timeout | null
  #soon: NodeJS.Immediate | null
  #end: ((problem: unknown) => void) | null
  #stopped: boolean

  /** @throws when `uvAbsent` */
  constructor() {
    const uv = look()
    if (typeof uv === 'string') throw new Error(uv)
    this.#uv = uv
    this.#watches = new Set()
    this.#work = null
    this.#timer = null
    this.#soon = null
    this.#end = null
    this.#stopped = false
  }

  watch(descriptor: Descriptor, ready: () => void): Watch {
    const watch = new UvWatch(this.#uv, descriptor, () => this.#step(ready))
    this.#watches.add(watch)
    return {
      close: () => {
        watch.close()
        this.#watches.delete(watch)
      },
      [Symbol.dispose]: () => {
        watch[Symbol.dispose]()
        this.#watches.delete(watch)
      },
    }
  }

  wakeUp(): void {
    this.#soon ??= setImmediate(() => {
      this.#soon = null
      this.#step(null)
    })
  }

  run(work: LoopWork): Promise<void> {
    if (this.#work !== null) throw new Error('a loop is run twice')
    this.#work = work
    return new Promise((resolve, reject) => {
      // An open timer keeps Node alive when no descriptor is watched.
      const alive = setInterval(() => {}, 2 ** 30)
      this.#end = (problem) => {
        clearInterval(alive)
        this.#end = null
        this.#work = null
        this.#stopped = false
        this.#cancelTimers()
        problem === null ? resolve() : reject(problem)
      }
      if (this.#stopped) this.#end(null)
      else this.wakeUp()
    })
  }

  stop(): void {
    this.#stopped = true
    this.#cancelTimers()
    // Whoever asks is inside of a callback, or outside of `run`.
    const end = this.#end
    if (end !== null) setImmediate(() => end(null))
  }

  [Symbol.dispose](): void {
    for (const watch of this.#watches) watch[Symbol.dispose]()
    this.#watches.clear()
    this.#cancelTimers()
  }

  #step(ready: (() => void) | null): void {
    const work = this.#work
    // Readiness stays until somebody takes it: it is told again as soon as the loop runs.
    if (work === null || this.#stopped) return
    try {
      ready?.()
      if (!this.#stopped) this.#schedule(work.turn())
    } catch (problem) {
      this.#end?.(problem)
    }
  }

  #schedule(us: number | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (us === null) return
    if (!(us > 0)) this.wakeUp()
    else {
      this.#timer = setTimeout(() => this.#step(null), Math.ceil(us / 1000))
    }
  }

  #cancelTimers(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#soon !== null) clearImmediate(this.#soon)
    this.#timer = null
    this.#soon = null
  }
}
