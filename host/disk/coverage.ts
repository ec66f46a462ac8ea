const FANOUT = 64

/** All of it, none of it, or some of it. */
type Slot = boolean | Node

class Node {
  readonly slots: Slot[]
  full: number

  constructor(all: boolean) {
    this.slots = new Array<Slot>(FANOUT).fill(all)
    this.full = all ? FANOUT : 0
  }

  put(index: number, slot: Slot): void {
    const before = this.slots[index]
    if (before === true) this.full -= 1
    if (slot === true) this.full += 1
    this.slots[index] = slot
  }

  /** Itself, or all when all its slots have come to that. */
  get settled(): Slot {
    return this.full === FANOUT ? true : this
  }
}

/**
 * A set of blocks, by number up to 2^53, as a tree in which whole branches are one value: a guest may discard
 * 2^50 bytes in one request, which must cost no more than a few nodes.
 */
export class Coverage {
  #root: Slot
  /** Blocks that the root spans: a power of `FANOUT`. */
  #span: number

  constructor() {
    this.#root = false
    this.#span = FANOUT
  }

  add(from: number, to: number): void {
    this.#reach(to)
    if (from < to) this.#root = put(this.#root, this.#span, from, to, true)
  }

  remove(from: number, to: number): void {
    if (from < Math.min(to, this.#span)) {
      this.#root = put(this.#root, this.#span, from, Math.min(to, this.#span), false)
    }
  }

  has(block: number): boolean {
    return block < this.#span && firstNot(this.#root, this.#span, block, block + 1, false) === block
  }

  /** The first block from `from` on that is not as `inside` says; `to` when all of them are. */
  endOf(from: number, to: number, inside: boolean): number {
    const within = Math.min(to, this.#span)
    if (from < within) {
      const found = firstNot(this.#root, this.#span, from, within, inside)
      if (found < within) return found
    }
    return inside ? Math.max(from, within) : to
  }

  #reach(blocks: number): void {
    while (this.#span < blocks) {
      if (this.#root !== false) {
        const node = new Node(false)
        node.put(0, this.#root)
        this.#root = node
      }
      this.#span *= FANOUT
    }
  }
}

function put(slot: Slot, span: number, from: number, to: number, value: boolean): Slot {
  if (slot === value || (from <= 0 && to >= span)) return value
  const node = typeof slot === 'boolean' ? new Node(slot) : slot
  const part = span / FANOUT
  const last = Math.ceil(Math.min(to, span) / part)
  for (let index = Math.floor(Math.max(from, 0) / part); index < last; index++) {
    const start = index * part
    node.put(index, put(node.slots[index] ?? false, part, from - start, to - start, value))
  }
  return node.settled
}

function firstNot(slot: Slot, span: number, from: number, to: number, value: boolean): number {
  if (typeof slot === 'boolean') return slot === value ? to : from
  const part = span / FANOUT
  for (let index = Math.floor(from / part); index * part < to; index++) {
    const start = index * part
    const end = Math.min(part, to - start)
    const found = firstNot(slot.slots[index] ?? false, part, Math.max(from - start, 0), end, value)
    if (found < end) return start + found
  }
  return to
}
