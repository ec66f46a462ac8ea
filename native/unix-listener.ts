import { chmodSync, lstatSync, unlinkSync } from 'node:fs'
import { Descriptor } from './descriptor.ts'
import { CLOEXEC, libc, O_NONBLOCK } from './libc.ts'
import { checked, lastErrno, NativeError } from './native-error.ts'
import { socketAddress, UnixSocket, unixSocket } from './unix-socket.ts'

const BACKLOG = 16
/** Whoever can connect can read and write what is served. */
const OWNER_ONLY = 0o600

export interface ListenOptions {
  /** Access rights of the socket file. */
  readonly mode?: number
}

/** A socket file that is listened at. It goes when the listener goes. */
export class UnixListener implements Disposable {
  readonly descriptor: Descriptor
  readonly path: string
  readonly #inode: number | null

  private constructor(descriptor: Descriptor, path: string, inode: number | null) {
    this.descriptor = descriptor
    this.path = path
    this.#inode = inode
  }

  /** Takes a socket over that listens, whose file is somebody else's; null, and it stays the caller's, when it does not. */
  static of(descriptor: Descriptor, name: string): UnixListener | null {
    // Linux refuses this for a socket that is connected, and for one that listens it changes the backlog only.
    return libc().listen(descriptor.number, BACKLOG) === 0 ? new UnixListener(descriptor, name, null) : null
  }

  /**
   * Makes the file and listens. A socket file that nobody listens at any more is replaced; anything else there is
   * left alone.
   *
   * @throws NativeError EADDRINUSE when somebody listens there, or something else lies there
   */
  static listen(path: string, { mode = OWNER_ONLY }: ListenOptions = {}): UnixListener {
    const address = socketAddress(path)
    if (address instanceof NativeError) throw address
    const descriptor = unixSocket()
    try {
      bindTo(descriptor, path, address)
      // Before `listen`, so that nobody can connect while the rights are still the umask's.
      chmodSync(path, mode)
      checked(libc().listen(descriptor.number, BACKLOG), 'listen', path)
    } catch (problem) {
      descriptor.close()
      throw problem
    }
    return new UnixListener(descriptor, path, inodeOf(path))
  }

  /** The next who connects; null when nobody does at present. */
  accept(): UnixSocket | null | NativeError {
    const number = libc().accept4(this.descriptor.number, 0, 0, O_NONBLOCK | CLOEXEC)
    if (number >= 0) return new UnixSocket(new Descriptor(number))
    const errno = lastErrno()
    // One who connected and left again is nobody.
    const nobody = errno === 'EAGAIN' || errno === 'EINTR' || errno === 'ECONNABORTED'
    return nobody ? null : new NativeError('accept4', errno, this.path)
  }

  /** The file goes too, unless it is another one by now. */
  close(): void {
    this.descriptor.close()
    if (this.#inode !== null && inodeOf(this.path) === this.#inode) unlinkSync(this.path)
  }

  [Symbol.dispose](): void {
    if (!this.descriptor.closed) this.close()
  }
}

function bindTo(descriptor: Descriptor, path: string, address: Uint8Array): void {
  if (libc().bind(descriptor.number, address, address.length) === 0) return
  const error = NativeError.last('bind', path)
  if (error.errno !== 'EADDRINUSE' || !isStale(path)) throw error
  unlinkSync(path)
  checked(libc().bind(descriptor.number, address, address.length), 'bind', path)
}

/** A socket file whose listener is gone. */
function isStale(path: string): boolean {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false
  const tried = UnixSocket.connect(path)
  if (tried instanceof NativeError) return tried.errno === 'ECONNREFUSED'
  tried.close()
  return false
}

function inodeOf(path: string): number | null {
  return lstatSync(path, { throwIfNoEntry: false })?.ino ?? null
}
