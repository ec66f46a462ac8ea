import { type ChildProcess, spawn } from 'node:child_process'
import type { LinuxKernel } from './initramfs.ts'

export interface LinuxGuestSetup {
  readonly kernel: LinuxKernel
  readonly initramfs: string
  /** Where vhost-user back-ends listen: /dev/vda, /dev/vdb and so on. */
  readonly sockets: readonly string[]
  readonly job: 'verify' | 'storm' | 'speed'
  /** What the job is told. */
  readonly arguments?: readonly string[]
  /** Whoever starts QEMU may be killed, and nothing must wait for ever. */
  readonly lifetimeSeconds: number
}

const MARK = 'GUEST '
/** What `timeout` ends with when it had to end its program. */
const TIMED_OUT = 124

function diskOptions(socket: string, index: number): readonly string[] {
  const device = `vhost-user-blk-pci,chardev=disk${index},num-queues=1,queue-size=128,disable-legacy=on`
  return ['-chardev', `socket,id=disk${index},path=${socket},reconnect=1`, '-device', device]
}

/** A Linux that nobody here wrote, in an emulated machine, on a disk that is served over vhost-user. */
export class LinuxGuest implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #gone: Promise<void>
  /** How it came to its end; null while it runs. */
  #end: string | null
  #heard: string
  /** What it said and nobody has asked for yet. */
  #lines: string[]
  #told: (() => void) | null

  constructor(setup: LinuxGuestSetup) {
    const { kernel, initramfs, sockets, job, lifetimeSeconds } = setup
    this.#end = null
    this.#heard = ''
    this.#lines = []
    this.#told = null
    this.#child = spawn(
      'timeout',
      [
        ...['--kill-after=5', `${lifetimeSeconds}`, 'qemu-system-x86_64'],
        ...['-accel', 'tcg', '-machine', 'q35,memory-backend=mem', '-cpu', 'max', '-m', '256M'],
        ...['-object', 'memory-backend-memfd,id=mem,size=256M,share=on'],
        ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
        ...['-kernel', kernel.image, '-initrd', initramfs],
        ...['-append', `console=ttyS0 quiet panic=-1 job=${job} -- ${(setup.arguments ?? []).join(' ')}`],
        ...sockets.flatMap(diskOptions),
      ],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    )
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => this.#hear(text))
    }
    const stop = (): void => void this.#child.kill('SIGTERM')
    process.once('exit', stop)
    this.#gone = new Promise((resolve) => {
      this.#child.on('close', (code) => {
        process.removeListener('exit', stop)
        this.#end = code === TIMED_OUT ? `was stopped after ${lifetimeSeconds} s` : 'ended'
        this.#told?.()
        resolve()
      })
    })
  }

  /** All it said, for a failure's text. */
  get heard(): string {
    return this.#heard.replaceAll('\r', '')
  }

  /** The rest of the next line that begins so; lines before it are passed over. @throws when it ends before. */
  async says(beginning: string): Promise<string> {
    for (;;) {
      const line = this.#lines.shift()
      if (line?.startsWith('wrong')) throw new Error(line)
      if (line?.startsWith(beginning)) return line.slice(beginning.length).trim()
      if (line !== undefined) continue
      if (this.#end !== null)
        throw new Error(`the guest ${this.#end} and said no "${beginning}":\n${this.heard}`)
      await new Promise<void>((resolve) => {
        this.#told = resolve
      })
    }
  }

  /** Forgets what it said up to now. */
  forget(): void {
    this.#lines = []
  }

  type(line: string): void {
    this.#child.stdin?.write(`${line}\n`)
  }

  /** Until it has powered off. */
  ended(): Promise<void> {
    return this.#gone
  }

  #hear(text: string): void {
    const before = this.#heard.lastIndexOf('\n') + 1
    this.#heard += text
    const whole = this.#heard.lastIndexOf('\n') + 1
    for (const line of this.#heard.slice(before, whole).split('\n')) {
      const at = line.indexOf(MARK)
      if (at >= 0) this.#lines.push(line.slice(at + MARK.length).trimEnd())
    }
    this.#told?.()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // To timeout, which passes it on; a killed timeout would leave QEMU behind.
    this.#child.kill('SIGTERM')
    await this.#gone
  }
}
