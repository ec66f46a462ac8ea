import { Descriptor } from './descriptor.ts'
import { CLOEXEC, libc, O_NONBLOCK } from './libc.ts'
import { checked } from './native-error.ts'
import { waitFor } from './poll-set.ts'
import { Scratch } from './scratch.ts'

const COUNTER_BYTES = 8

let counter: Scratch | null = null

/**
 * A counter that wakes whoever waits for it: kicks and calls.
 *
 * Flags of the open file belong to everybody who has a descriptor of it, so whether a read waits is for the peer
 * to say. We ask first, each time.
 */
export class EventDescriptor implements Disposable {
  readonly descriptor: Descriptor

  private constructor(descriptor: Descriptor) {
    this.descriptor = descriptor
  }

  /** @throws NativeError */
  static create(): EventDescriptor {
    return new EventDescriptor(new Descriptor(checked(libc().eventfd(0, O_NONBLOCK | CLOEXEC), 'eventfd')))
  }

  /** Takes over what a peer sent; null, and it stays the caller's, when that is something else. */
  static of(descriptor: Descriptor): EventDescriptor | null {
    return descriptor.kind === 'event' ? new EventDescriptor(descriptor) : null
  }

  /** Wakes the other side. A counter that is full wakes it already. */
  signal(): void {
    if (!waitFor(this.descriptor, 'writable', 0)) return
    counter ??= new Scratch(COUNTER_BYTES)
    counter.putAddress(0, 1)
    libc().write(this.descriptor.number, counter.address, COUNTER_BYTES)
  }

  /** Takes what was signalled; false when nothing was. */
  drain(): boolean {
    if (!waitFor(this.descriptor, 'readable', 0)) return false
    counter ??= new Scratch(COUNTER_BYTES)
    return libc().read(this.descriptor.number, counter.address, COUNTER_BYTES) === COUNTER_BYTES
  }

  close(): void {
    this.descriptor.close()
  }

  [Symbol.dispose](): void {
    this.descriptor[Symbol.dispose]()
  }
}
