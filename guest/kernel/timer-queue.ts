/** Something due at a time. `due` runs at DISPATCH level. */
export interface TimerOwner {
  due(): void
}

/** A place in the queue. An entry that was cancelled stays until its time and does nothing then. */
export class TimerEntry {
  readonly dueUs: number
  readonly order: number
  owner: TimerOwner | null

  constructor(dueUs: number, order: number, owner: TimerOwner) {
    this.dueUs = dueUs
    this.order = order
    this.owner = owner
  }
}

/** What waits for a time, earliest first; ties in the order they came: a binary heap. */
export class TimerQueue {
  readonly #heap: TimerEntry[]
  #order: number
  #live: number

  constructor() {
    this.#heap = []
    this.#order = 0
    this.#live = 0
  }

  /** Entries not cancelled. */
  get count(): number {
    return this.#live
  }

  insert(dueUs: number, owner: TimerOwner): TimerEntry {
    const entry = new TimerEntry(dueUs, this.#order++, owner)
    const heap = this.#heap
    let at = heap.length
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = heap[above] as TimerEntry
      if (!before(entry, parent)) break
      heap[at] = parent
      at = above
    }
    heap[at] = entry
    this.#live++
    return entry
  }

  cancel(entry: TimerEntry): void {
    if (entry.owner === null) return
    entry.owner = null
    this.#live--
  }

  /** When the next one is due, or null. */
  nextUs(): number | null {
    while (this.#heap[0]?.owner === null) this.#drop()
    return this.#heap[0]?.dueUs ?? null
  }

  /** Takes out the first one that is due at `nowUs`; null when none is. */
  take(nowUs: number): TimerOwner | null {
    const next = this.nextUs()
    if (next === null || next > nowUs) return null
    const entry = this.#drop() as TimerEntry
    const { owner } = entry
    entry.owner = null
    this.#live--
    return owner
  }

  #drop(): TimerEntry | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      const right = heap[child + 1]
      if (right !== undefined && before(right, heap[child] as TimerEntry)) child++
      const smaller = heap[child] as TimerEntry
      if (!before(smaller, last)) break
      heap[at] = smaller
      at = child
    }
    heap[at] = last
    return first
  }
}

function before(a: TimerEntry, b: TimerEntry): boolean {
  return a.dueUs < b.dueUs || (a.dueUs === b.dueUs && a.order < b.order)
}
