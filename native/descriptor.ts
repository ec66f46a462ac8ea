import { fstatSync, readlinkSync } from 'node:fs'
import { F_DUPFD_CLOEXEC, libc } from './libc.ts'
import { checked, NativeError } from './native-error.ts'

export type DescriptorKind = 'file' | 'event' | 'socket' | 'pipe' | 'other'

let open = 0

/** Owned descriptors that are open in this thread. */
export function openDescriptors(): number {
  return open
}

/**
 * A file descriptor and its one owner. Closed exactly once: closing again is our own mistake and throws, since
 * by then the number may be somebody else's.
 */
export class Descriptor implements Disposable {
  #number: number
  #watched: number

  /** Takes the number over. */
  constructor(number: number) {
    if (!(Number.isInteger(number) && number >= 0)) throw new RangeError(`descriptor ${number}`)
    this.#number = number
    this.#watched = 0
    open++
  }

  get closed(): boolean {
    return this.#number < 0
  }

  /** @throws when it is closed. */
  get number(): number {
    if (this.#number < 0) throw new Error('a closed descriptor is used')
    return this.#number
  }

  /**
   * What is behind it. A peer may send anything as anything, and a mapping of a pipe or a wait for a plain file
   * would fail late and strangely.
   */
  get kind(): DescriptorKind {
    const stat = fstatSync(this.number)
    if (stat.isFile()) return 'file'
    if (stat.isSocket()) return 'socket'
    if (stat.isFIFO()) return 'pipe'
    // Anonymous inodes have no type of their own; their name is all that tells them apart.
    return linkOf(this.number).startsWith('anon_inode:[eventfd') ? 'event' : 'other'
  }

  /** @throws when it is closed already, or watched by a loop. */
  close(): void {
    if (this.#watched > 0) throw new Error('a descriptor is closed while a loop watches it')
    // No second try: Linux has let go of the number whatever it answers.
    libc().close(this.release())
  }

  [Symbol.dispose](): void {
    if (!this.closed) this.close()
  }

  /** Gives the number away, open; who gets it closes it. */
  release(): number {
    const { number } = this
    this.#number = -1
    open--
    return number
  }

  /** A second descriptor of the same open file, with an owner of its own. @throws NativeError */
  duplicate(): Descriptor {
    return new Descriptor(checked(libc().fcntl(this.number, F_DUPFD_CLOEXEC, 3), 'fcntl'))
  }

  /** A loop watches it from now on. The answer ends that, once. */
  pin(): () => void {
    this.#watched++
    return () => {
      this.#watched--
    }
  }
}

function linkOf(number: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${number}`)
  } catch {
    return ''
  }
}

/** Length of a file or of shared memory in bytes. */
export function lengthOf(descriptor: Descriptor): number | NativeError {
  const stat = fstatSync(descriptor.number)
  return stat.isFile() ? stat.size : new NativeError('fstat', 'EINVAL')
}
