import type { Descriptor } from './descriptor.ts'
import type { EdgeLoop, LoopWork, Watch } from './edge-loop.ts'
import { type NodeLoop, nodeLoop } from './node-loop.ts'
import { PollSet } from './poll-set.ts'

/** Looks at the rings between two looks at the descriptors, while nobody sleeps. */
const LOOKS_AT_ONCE = 64

class PollWatch implements Watch {
  readonly descriptor: Descriptor
  readonly ready: () => void
  readonly #unpin: () => void
  readonly #closed: (watch: PollWatch) => void
  open: boolean

  constructor(descriptor: Descriptor, ready: () => void, closed: (watch: PollWatch) => void) {
    this.descriptor = descriptor
    this.ready = ready
    this.#unpin = descriptor.pin()
    this.#closed = closed
    this.open = true
  }

  close(): void {
    if (!this.open) throw new Error('a watch is closed twice')
    this.open = false
    this.#unpin()
    this.#closed(this)
  }

  [Symbol.dispose](): void {
    if (this.open) this.close()
  }
}

/**
 * A thread that sleeps in poll(2) itself, for stacks whose every layer answers at once: one call between a kick and
 * the work it asks for, where Node's loop needs several.
 *
 * Node's loop is one of the descriptors that are waited for, and its next timer one of the deadlines: when it has
 * something to do (a signal, a write to a pipe), it is let run. Promises go on then only.
 */
export class PollLoop implements EdgeLoop {
  readonly description = "poll(2), with Node's loop among what is waited for"
  readonly #node: NodeLoop
  readonly #set: PollSet
  readonly #watches: Set<PollWatch>
  /** By index in the set, as it was built last. */
  #polled: PollWatch[]
  #changed: boolean
  #soon: boolean
  #running: boolean
  #stopped: boolean

  /** @throws when `nodeLoop` says why not */
  constructor() {
    const node = nodeLoop()
    if (typeof node === 'string') throw new Error(node)
    this.#node = node
    this.#set = new PollSet()
    this.#watches = new Set()
    this.#polled = []
    this.#changed = true
    this.#soon = false
    this.#running = false
    this.#stopped = false
  }

  watch(descriptor: Descriptor, ready: () => void): Watch {
    const watch = new PollWatch(descriptor, ready, (closed) => {
      this.#watches.delete(closed)
      this.#changed = true
    })
    this.#watches.add(watch)
    this.#changed = true
    return watch
  }

  wakeUp(): void {
    this.#soon = true
  }

  async run(work: LoopWork): Promise<void> {
    if (this.#running) throw new Error('a loop is run twice')
    this.#running = true
    // Node's loop says that it has something to do when nothing keeps it alive, for then it would end.
    const alive = setInterval(nothing, 2 ** 30)
    try {
      // What Node watches since now is in its set only once it has run.
      await nodeRuns()
      while (!this.#stopped) {
        const dueUs = this.#turns(work)
        if (this.#stopped) break
        if (this.#wait(dueUs)) await nodeRuns()
      }
    } finally {
      clearInterval(alive)
      this.#running = false
      this.#stopped = false
    }
  }

  stop(): void {
    this.#stopped = true
  }

  [Symbol.dispose](): void {
    for (const watch of [...this.#watches]) watch.close()
  }

  /** Runs what can run, and looks where nobody rings. Microseconds that may be slept; null for ever. */
  #turns(work: LoopWork): number | null {
    this.#soon = false
    let dueUs = work.turn()
    if (work.look === undefined) return this.#soon ? 0 : dueUs
    for (let left = LOOKS_AT_ONCE; left > 0 && !this.#stopped; left--) {
      const looked = work.look()
      if (looked === null) return this.#soon ? 0 : dueUs
      if (!looked) continue
      dueUs = work.turn()
    }
    return 0
  }

  /** Sleeps, and tells those whose descriptor is ready. True when Node has something to do. */
  #wait(dueUs: number | null): boolean {
    if (this.#changed) this.#rebuild()
    let timeoutUs = dueUs
    let nodeIsDue = false
    if (dueUs === null || dueUs > 0) {
      const nodeMs = this.#node.timeoutMs()
      if (nodeMs >= 0 && (dueUs === null || nodeMs * 1000 <= dueUs)) {
        timeoutUs = nodeMs * 1000
        nodeIsDue = true
      }
    }
    const ready = this.#set.wait(timeoutUs)
    if (ready === 0) return nodeIsDue
    const polled = this.#polled
    for (let index = 0; index < polled.length; index++) {
      const watch = polled[index] as PollWatch
      // Whoever was told before may have closed it.
      if (this.#set.ready(index + 1) && watch.open) watch.ready()
      if (this.#stopped) break
    }
    return this.#set.ready(0)
  }

  #rebuild(): void {
    this.#changed = false
    this.#polled = [...this.#watches]
    this.#set.clear()
    this.#set.add(this.#node)
    for (const { descriptor } of this.#polled) this.#set.add(descriptor)
  }
}

/** Lets Node's loop run once: signals, timers, pipes, and the promises they settle. */
async function nodeRuns(): Promise<void> {
  await new Promise<void>((resolve) => {
    setImmediate(resolve)
  })
  // The handle that keeps Node's loop from sleeping while immediates wait is stopped after their callbacks, of which
  // this is a part still: its loop would seem to have something to do for ever. One that is made and taken back
  // stops it now, unless others wait.
  clearImmediate(setImmediate(nothing))
}

function nothing(): void {}
