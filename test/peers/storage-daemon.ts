/** QEMU's storage daemon with one vhost-user-blk export, as a peer for our driver. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

export const DAEMON = 'qemu-storage-daemon'

/** What is missing for it, or null. */
export function daemonMissing(): string | null {
  return spawnSync(DAEMON, ['--version']).error === undefined ? null : DAEMON
}

export interface StorageDaemonSetup {
  readonly image: Uint8Array
  readonly exportOptions?: string
}

export class StorageDaemon implements Disposable {
  readonly folder: string
  readonly image: string
  readonly socket: string
  /** Path of its monitor's pipes, for `Qmp`. */
  readonly monitor: string
  readonly #options: string
  #process: ChildProcess | null

  constructor({ image, exportOptions = '' }: StorageDaemonSetup) {
    this.folder = mkdtempSync(path.join(tmpdir(), 'paravane-qsd-'))
    this.image = path.join(this.folder, 'disk.img')
    this.socket = path.join(this.folder, 'disk.sock')
    this.monitor = path.join(this.folder, 'monitor')
    this.#options = exportOptions
    this.#process = null
    writeFileSync(this.image, image)
    execFileSync('mkfifo', [`${this.monitor}.in`, `${this.monitor}.out`])
  }

  /** Starts it; it listens when this is done. */
  async start(): Promise<void> {
    rmSync(this.socket, { force: true })
    const child = spawn(DAEMON, this.arguments, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#process = child
    let said = ''
    child.stderr?.on('data', (data) => {
      said += String(data)
    })
    // It makes its socket once everything else is ready.
    for (let left = 1000; !existsSync(this.socket); left--) {
      if (child.exitCode !== null || left === 0) throw new Error(`${DAEMON} does not start: ${said.trim()}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  get arguments(): string[] {
    return [
      ...['--blockdev', `driver=file,node-name=file,filename=${this.image},discard=unmap`],
      ...['--blockdev', 'driver=raw,node-name=disk,file=file,discard=unmap'],
      ...['--chardev', `pipe,id=monitor,path=${this.monitor}`, '--monitor', 'chardev=monitor', '--export'],
      `type=vhost-user-blk,id=export,addr.type=unix,addr.path=${this.socket},node-name=disk,writable=on${this.#options}`,
    ]
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name)
  }

  /** Kills it, and waits until it is gone. */
  async kill(): Promise<void> {
    const child = this.#process
    this.#process = null
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await gone
  }

  [Symbol.dispose](): void {
    this.#process?.kill('SIGKILL')
    rmSync(this.folder, { recursive: true, force: true })
  }
}
