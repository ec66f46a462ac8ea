import type { ChildProcess } from 'node:child_process'
import type { Built } from '../../bin/built.ts'

/** `paravane serve` as a process of its own, so that it can be killed. */
export class ServedDisk implements AsyncDisposable {
  readonly socket: string
  readonly #built: Built
  readonly #arguments: readonly string[]
  readonly #folder: string
  #child: ChildProcess | null
  #gone: Promise<number | null>
  /** What all processes so far have said. */
  said: string

  constructor(built: Built, folder: string, spec: string, options: readonly string[] = []) {
    this.#built = built
    this.#folder = folder
    this.socket = 'disk.sock'
    this.#arguments = ['serve', spec, '--socket', this.socket, ...options]
    this.#child = null
    this.#gone = Promise.resolve(null)
    this.said = ''
  }

  /** Until it listens. @throws when it ends before. */
  async start(): Promise<void> {
    const child = this.#built.start(this.#arguments, this.#folder)
    this.#child = child
    this.#gone = new Promise((resolve) => child.on('close', resolve))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.said += text
    })
    await new Promise<void>((resolve, reject) => {
      let banner = ''
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        this.said += text
        banner += text
        // The banner's last line: the socket is there before the first.
        if (banner.includes('stop ')) resolve()
      })
      child.on('close', () => reject(new Error(`paravane serve ends: ${this.said}`)))
    })
  }

  /** No last word, no flush: what the kernel does to a process that is killed. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#gone
    this.#child = null
  }

  /** Its exit code, after Ctrl-C. */
  async stop(): Promise<number | null> {
    this.#child?.kill('SIGINT')
    const code = await this.#gone
    this.#child = null
    return code
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
