import type { Trigger } from '../../protocol/processor.ts'
import { ends, lowers, nests, type Step } from './event-script.ts'

interface Line {
  high: boolean
  vector: number | null
  trigger: Trigger
  /** Delivered, and its EOI still to come. */
  waits: boolean
}

/** Interrupts as the SDM and the I/O APIC's data sheet describe them, in sets and numbers and nothing else. */
export class EventModel {
  readonly log: string[] = []
  readonly #lines = new Map<number, Line>()
  readonly #requested = new Set<number>()
  readonly #serving: number[] = []
  readonly #level = new Set<number>()
  #enabled = false
  #priority = 0
  #nmi = false
  #nmiBlocked = false
  #served = 0

  run(steps: readonly Step[]): readonly string[] {
    for (const [index, step] of steps.entries()) {
      if (step.kind === 'yield') continue
      if (step.kind === 'halt') {
        // Nothing is due when a guest falls asleep, so it is the step that wakes it or nothing does.
        this.#do(step.wake)
        if (!this.#deliver() && index + 1 < steps.length) {
          this.log.push('asleep')
          this.#nmi = true
          this.#deliver()
        }
        continue
      }
      this.#do(step)
      this.#deliver()
      this.log.push(`${index + 1}`)
    }
    return this.log
  }

  #do(step: Step): void {
    if (step.kind === 'raise') {
      const line = this.#line(step.line)
      const rises = !line.high
      line.high = true
      if (line.trigger === 'level') this.#assert(line)
      else if (rises && line.vector !== null) this.#accept(line.vector, false)
    } else if (step.kind === 'lower') this.#line(step.line).high = false
    else if (step.kind === 'message' || step.kind === 'self') this.#accept(step.vector, false)
    else if (step.kind === 'nmi') this.#nmi = true
    else if (step.kind === 'priority') this.#priority = step.priority
    else if (step.kind === 'sti') this.#enabled = true
    else if (step.kind === 'cli') this.#enabled = false
    else if (step.kind === 'eoi') this.#end()
    else if (step.kind === 'route') {
      const line = this.#line(step.line)
      line.vector = step.vector
      line.trigger = step.vector === null ? 'edge' : step.trigger
      if (line.trigger === 'edge') line.waits = false
      else this.#assert(line)
    }
  }

  #line(number: number): Line {
    const line = this.#lines.get(number) ?? { high: false, vector: null, trigger: 'edge', waits: false }
    this.#lines.set(number, line)
    return line
  }

  #assert(line: Line): void {
    if (!line.high || line.waits || line.vector === null) return
    line.waits = true
    this.#accept(line.vector, true)
  }

  #accept(vector: number, level: boolean): void {
    if (level) this.#level.add(vector)
    else this.#level.delete(vector)
    this.#requested.add(vector)
  }

  #end(): void {
    const vector = Math.max(...this.#serving)
    if (this.#serving.length === 0) return
    this.#serving.splice(this.#serving.indexOf(vector), 1)
    if (!this.#level.has(vector)) return
    for (const line of this.#lines.values()) {
      if (line.vector !== vector || line.trigger !== 'level' || !line.waits) continue
      line.waits = false
      this.#assert(line)
    }
  }

  /** Everything that may come now. Whether anything came. */
  #deliver(): boolean {
    for (let any = false; ; any = true) {
      if (this.#nmi && !this.#nmiBlocked) this.#serveNmi()
      else {
        const vector = Math.max(...this.#requested)
        const floor = Math.max(this.#priority, ...this.#serving.map((one) => one >> 4))
        if (!this.#enabled || !(vector >> 4 > floor) || this.#requested.size === 0) return any
        this.#requested.delete(vector)
        this.#serving.push(vector)
        this.#serve(vector)
      }
    }
  }

  #serveNmi(): void {
    const enabled = this.#enabled
    this.#nmi = false
    this.#nmiBlocked = true
    this.#enabled = false
    this.log.push('nmi')
    this.#deliver()
    this.#nmiBlocked = false
    this.#enabled = enabled
  }

  #serve(vector: number): void {
    this.#enabled = false
    this.log.push(`serve ${vector.toString(16)}`)
    this.#served++
    if (lowers(this.#served)) {
      for (const line of this.#lines.values()) if (line.vector === vector) line.high = false
    }
    this.#deliver()
    if (nests(vector)) {
      this.#enabled = true
      this.#deliver()
      this.#enabled = false
    }
    if (ends(vector)) this.#end()
    this.#deliver()
    this.log.push(`end ${vector.toString(16)}`)
    this.#enabled = true
  }
}
