import type { Timer, Work } from '../protocol/platform.ts'

/** Work at a time. Ties run in the order they were made. */
export class Deadline implements Timer {
  readonly dueUs: number
  readonly order: number
  /** Under which its owner finds it again after `load`; null for those that cannot be saved. */
  readonly name: string | null
  /** Null once it ran or was cancelled. */
  work: Work | null

  constructor(dueUs: number, order: number, name: string | null, work: Work) {
    this.dueUs = dueUs
    this.order = order
    this.name = name
    this.work = work
  }

  cancel(): void {
    this.work = null
  }
}

/** Deadlines by (due, order), as a binary heap. A cancelled one leaves when it would have been next. */
export class DeadlineHeap {
  #heap: Deadline[]

  constructor() {
    this.#heap = []
  }

  /** The next one that still has work to do. */
  first(): Deadline | null {
    while (this.#heap[0]?.work === null) this.pop()
    return this.#heap[0] ?? null
  }

  /** Those that still have work, in the order they will run. */
  list(): readonly Deadline[] {
    return this.#heap.filter((one) => one.work !== null).sort((a, b) => (before(a, b) ? -1 : 1))
  }

  push(deadline: Deadline): void {
    const heap = this.#heap
    let at = heap.length
    while (at > 0) {
      const above = Math.floor((at - 1) / 2)
      const parent = heap[above] as Deadline
      if (!before(deadline, parent)) break
      heap[at] = parent
      at = above
    }
    heap[at] = deadline
  }

  pop(): Deadline | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      const right = heap[child + 1]
      if (right !== undefined && before(right, heap[child] as Deadline)) child++
      const smaller = heap[child] as Deadline
      if (!before(smaller, last)) break
      heap[at] = smaller
      at = child
    }
    heap[at] = last
    return first
  }
}

function before(a: Deadline, b: Deadline): boolean {
  return a.dueUs < b.dueUs || (a.dueUs === b.dueUs && a.order < b.order)
}
