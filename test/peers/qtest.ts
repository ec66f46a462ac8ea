/** QEMU without a guest: its devices, driven command by command over the qtest protocol. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { AccessWidth } from '../../protocol/platform.ts'

const QEMU = 'qemu-system-x86_64'
/** Whoever starts QEMU may be killed, and whoever waits for it must not wait for ever. */
const LIFETIME_SECONDS = '20'
const SUFFIX: { readonly [width in AccessWidth]: string } = { 1: 'b', 2: 'w', 4: 'l', 8: 'q' }

/** What is missing to run QEMU here, or null. */
export function missingQemu(): string | null {
  for (const tool of [QEMU, 'timeout', 'mkfifo']) {
    try {
      execFileSync(tool, ['--version'], { stdio: 'ignore' })
    } catch {
      return tool
    }
  }
  return null
}

export function qemuVersion(): string {
  return execFileSync(QEMU, ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? ''
}

/**
 * One QEMU with a stopped processor, on a pair of named pipes: plain blocking reads and writes, so that a
 * register access is the synchronous thing that a driver takes it for. When QEMU ends, for whatever reason,
 * a read finds the end of the pipe and throws.
 */
export class Qtest implements AsyncDisposable {
  readonly folder: string
  readonly #child: ChildProcess
  readonly #gone: Promise<unknown>
  readonly #commands: number
  readonly #answers: number
  readonly #chunk: Buffer
  readonly #levels: Map<number, boolean>
  #text: string
  #commandCount: number

  /** @param argumentsOf what QEMU is started with besides, given the folder for its files. */
  constructor(argumentsOf: (folder: string) => readonly string[]) {
    this.folder = mkdtempSync(path.join(tmpdir(), 'paravane-qtest-'))
    const into = path.join(this.folder, 'commands')
    const from = path.join(this.folder, 'answers')
    execFileSync('mkfifo', [into, from, `${this.monitor}.in`, `${this.monitor}.out`])
    // A pipe opened for both does not wait for its other end; it is closed as soon as both ends are there.
    const both = [openSync(into, 'r+'), openSync(from, 'r+')]
    const its = [openSync(into, 'r'), openSync(from, 'w'), openSync(this.#log, 'w')] as const
    this.#commands = openSync(into, 'w')
    this.#answers = openSync(from, 'r')
    const own = ['-accel', 'tcg', '-S', '-display', 'none', '-nodefaults', '-no-user-config']
    this.#child = spawn(
      'timeout',
      [
        '--kill-after=5',
        LIFETIME_SECONDS,
        QEMU,
        ...own,
        '-qtest',
        'stdio',
        '-qtest-log',
        'none',
        '-qmp',
        `pipe:${this.monitor}`,
      ].concat(argumentsOf(this.folder)),
      { stdio: [...its] },
    )
    this.#gone = new Promise((resolve) => {
      this.#child.once('exit', resolve)
      this.#child.once('error', resolve)
    })
    for (const fd of [...both, ...its]) closeSync(fd)
    this.#chunk = Buffer.alloc(0x1_0000)
    this.#levels = new Map()
    this.#text = ''
    this.#commandCount = 0
  }

  /** Path of the monitor's pipes, for `Qmp`. */
  get monitor(): string {
    return path.join(this.folder, 'monitor')
  }

  /** Commands sent so far. */
  get commandCount(): number {
    return this.#commandCount
  }

  /** Level of an interrupt line of the intercepted controller, as last told. */
  level(line: number): boolean {
    return this.#levels.get(line) ?? false
  }

  /** Sends a command and waits for its answer. @throws when QEMU refuses it or is gone. */
  command(text: string): string {
    this.#commandCount++
    writeSync(this.#commands, `${text}\n`)
    for (;;) {
      const line = this.#line()
      if (this.#tookLevel(line)) continue
      if (line !== 'OK' && !line.startsWith('OK ')) throw new Error(`qtest: ${text}: ${line}`)
      return line.slice(3)
    }
  }

  /** Blocks until an interrupt line changes its level. @throws when QEMU is gone. */
  waitLevel(): void {
    const line = this.#line()
    if (!this.#tookLevel(line)) throw new Error(`qtest: an answer to no question: ${line}`)
  }

  read(at: number, width: AccessWidth): number {
    return Number(this.command(`read${SUFFIX[width]} ${at}`))
  }

  write(at: number, width: AccessWidth, value: number): void {
    this.command(`write${SUFFIX[width]} ${at} ${value}`)
  }

  /** Ends QEMU and removes its files. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM')
    await this.#gone
    closeSync(this.#commands)
    closeSync(this.#answers)
    rmSync(this.folder, { recursive: true, force: true })
  }

  get #log(): string {
    return path.join(this.folder, 'log')
  }

  #tookLevel(line: string): boolean {
    const told = /^IRQ (raise|lower) (\d+)$/.exec(line)
    if (told === null) return false
    this.#levels.set(Number(told[2]), told[1] === 'raise')
    return true
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
      if (count === 0) throw new Error(`QEMU is gone: ${readFileSync(this.#log, 'utf8').trim()}`)
      this.#text += this.#chunk.toString('latin1', 0, count)
    }
  }
}
