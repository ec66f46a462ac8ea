import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { NativeError } from '../../native/native-error.ts'
import { UnixSocket } from '../../native/unix-socket.ts'

const PARAVANE = fileURLToPath(new URL('../../bin/paravane.js', import.meta.url))
export const THEIRS = 'qemu-storage-daemon'
export const OURS = 'ours'
export const OURS_POLLING = 'ours, polling'

/** What is missing to serve disks for comparison, or null. */
export function peersMissing(): string | null {
  return spawnSync(THEIRS, ['--version']).error === undefined ? null : THEIRS
}

export interface PeerDaemonSetup {
  readonly candidate: string
  /** The disk. */
  readonly file: string
  /** Where the socket is made. */
  readonly folder: string
  /** Whoever started a daemon may be killed; it does not stay behind for ever. */
  readonly lifetimeSeconds: number
}

/** A daemon that serves a file over vhost-user, whoever wrote it. */
export class PeerDaemon implements AsyncDisposable {
  readonly socket: string
  readonly #child: ChildProcess
  readonly #gone: Promise<unknown>

  private constructor(socket: string, child: ChildProcess) {
    this.socket = socket
    this.#child = child
    const stop = (): void => void child.kill('SIGTERM')
    process.once('exit', stop)
    this.#gone = new Promise((resolve) => child.once('exit', resolve)).then(() =>
      process.removeListener('exit', stop),
    )
  }

  /** Starts it; it listens when this is done. */
  static async start(setup: PeerDaemonSetup): Promise<PeerDaemon> {
    const { candidate, folder, lifetimeSeconds } = setup
    const socket = path.join(folder, `${candidate.replaceAll(/\W+/g, '-')}.sock`)
    const child = spawn('timeout', [`${lifetimeSeconds}`, ...daemonArguments(setup, socket)], {
      stdio: 'ignore',
    })
    const daemon = new PeerDaemon(socket, child)
    // A socket file is there a moment before anybody listens.
    for (let left = 1000; !listens(socket); left--) {
      if (child.exitCode !== null || left === 0) throw new Error(`${candidate} does not start`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return daemon
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // To timeout, which passes it on.
    this.#child.kill('SIGTERM')
    await this.#gone
  }
}

function daemonArguments({ candidate, file }: PeerDaemonSetup, socket: string): readonly string[] {
  if (candidate === THEIRS) {
    return [
      ...[THEIRS, '--blockdev', `driver=file,node-name=file,filename=${file}`],
      ...['--blockdev', 'driver=raw,node-name=disk,file=file', '--export'],
      `type=vhost-user-blk,id=export,addr.type=unix,addr.path=${socket},node-name=disk,writable=on`,
    ]
  }
  const polling = candidate === OURS_POLLING ? ['--polling'] : []
  return [process.execPath, PARAVANE, 'serve', `file:${file}`, '--socket', socket, ...polling]
}

function listens(socket: string): boolean {
  const tried = UnixSocket.connect(socket)
  if (tried instanceof NativeError) return false
  tried.close()
  return true
}
