import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'

/** QEMU's monitor on a pair of named pipes: asks QEMU what it thinks, apart from what our driver sees. */
export class Qmp {
  readonly #commands: number
  readonly #answers: number
  readonly #chunk: Buffer
  #text: string

  /** @param pipe path of the pipes without `.in` and `.out`; QEMU has opened both already. */
  constructor(pipe: string) {
    // Without waiting: a QEMU that is gone would never open the other end.
    this.#commands = openSync(`${pipe}.in`, constants.O_WRONLY | constants.O_NONBLOCK)
    this.#answers = openSync(`${pipe}.out`, 'r')
    this.#chunk = Buffer.alloc(0x1_0000)
    this.#text = ''
    this.ask('qmp_capabilities')
  }

  /** @throws when QEMU refuses or is gone. */
  ask(execute: string, args: { readonly [name: string]: unknown } = {}): unknown {
    writeSync(this.#commands, `${JSON.stringify({ execute, arguments: args })}\n`)
    for (;;) {
      const answer = JSON.parse(this.#line()) as { readonly return?: unknown; readonly error?: unknown }
      if (answer.error !== undefined) throw new Error(`QMP: ${execute}: ${JSON.stringify(answer.error)}`)
      // A greeting and events come in between.
      if (answer.return !== undefined) return answer.return
    }
  }

  close(): void {
    closeSync(this.#commands)
    closeSync(this.#answers)
  }

  #line(): string {
    for (;;) {
      const end = this.#text.indexOf('\n')
      if (end >= 0) {
        const line = this.#text.slice(0, end)
        this.#text = this.#text.slice(end + 1)
        return line
      }
      const count = readSync(this.#answers, this.#chunk)
      if (count === 0) throw new Error('QMP: QEMU is gone')
      this.#text += this.#chunk.toString('utf8', 0, count)
    }
  }
}
