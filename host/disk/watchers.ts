import type { DiskChange, DiskListener } from './backend.ts'

/** Who wants to hear of changes. A listener may stop watching, or others start, while it is being told. */
export class Watchers {
  readonly #listeners: Set<{ readonly listener: DiskListener }>

  constructor() {
    this.#listeners = new Set()
  }

  add(listener: DiskListener): () => void {
    const entry = { listener }
    this.#listeners.add(entry)
    return () => {
      this.#listeners.delete(entry)
    }
  }

  tell(change: DiskChange): void {
    for (const entry of [...this.#listeners]) {
      if (this.#listeners.has(entry)) entry.listener(change)
    }
  }

  clear(): void {
    this.#listeners.clear()
  }
}
