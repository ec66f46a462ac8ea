import type {
  DiskBackend,
  DiskFacts,
  DiskHolder,
  DiskIo,
  DiskListener,
  DiskOutcome,
} from '../../host/disk/backend.ts'
import { Watchers } from '../../host/disk/watchers.ts'

export const HELD_BYTES = 64 * 512

/**
 * A disk that answers when the test says so, and keeps a log of what it was asked and what it answered. Reads
 * find bytes of 0x5a, put into the lent views when they are answered.
 */
export class HeldDisk implements DiskBackend, DiskHolder {
  facts: DiskFacts
  /** Gives up what it is asked to give up. */
  obedient = true
  readonly held: DiskIo[]
  readonly log: string[]
  readonly #watchers: Watchers

  constructor(facts: Partial<DiskFacts> = {}) {
    this.facts = {
      lengthBytes: HELD_BYTES,
      blockBytes: 512,
      physicalBlockBytes: 512,
      readOnly: false,
      medium: true,
      volatileCache: true,
      serial: 'HELD',
      can: { fua: true, zero: true, discard: true, erase: true, resize: true, extents: false },
      synchronous: false,
      privateLoans: false,
      ...facts,
    }
    this.held = []
    this.log = []
    this.#watchers = new Watchers()
  }

  submit(io: DiskIo): void {
    this.log.push(io.op)
    io.holder = this
    this.held.push(io)
  }

  cancel(io: DiskIo): void {
    const index = this.held.indexOf(io)
    if (this.obedient && index >= 0) this.end(index, 'cancelled')
  }

  watch(listener: DiskListener): () => void {
    return this.#watchers.add(listener)
  }

  close(finished: () => void): void {
    finished()
  }

  /** Says that the facts are others now. */
  change(facts: Partial<DiskFacts>): void {
    this.facts = { ...this.facts, ...facts }
    this.#watchers.tell('size')
  }

  /** Answers one of those it holds. */
  end(index = 0, outcome: DiskOutcome = 'ok', bytesDone?: number): void {
    const [io] = this.held.splice(index, 1)
    if (io === undefined) return
    // Private loans: once a request is given up, its views are not touched any more.
    const mayTouch = !(this.facts.privateLoans && io.cancelling)
    if (io.op === 'read' && outcome === 'ok' && mayTouch) for (const view of io.lent) view.fill(0x5a)
    this.log.push(`${io.op} ${outcome}`)
    io.answer(outcome, bytesDone)
  }

  /** What is in flight behind our back touches memory once more, as a read from a file may at any time. */
  scribble(): void {
    if (this.facts.privateLoans) return
    for (const io of this.held) if (io.op === 'read') for (const view of io.lent) view.fill(0x77)
  }
}
