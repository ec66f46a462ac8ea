import type { ArrivalSource, Plain } from '../../protocol/platform.ts'

/** Someone outside who answers when the test says so. */
export class Outside implements ArrivalSource {
  readonly path: string
  readonly heard: Plain[] = []
  readonly onHeard: (value: Plain) => void
  constructor(path: string, onHeard: (value: Plain) => void = () => {}) {
    this.path = path
    this.onHeard = onHeard
  }
  arrived(value: Plain): void {
    this.heard.push(value)
    this.onHeard(value)
  }
}
