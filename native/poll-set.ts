import type { Descriptor } from './descriptor.ts'
import { libc, POLLIN, POLLNVAL, POLLOUT } from './libc.ts'
import { lastErrno, NativeError } from './native-error.ts'
import { Scratch } from './scratch.ts'

/** `struct pollfd`: descriptor, events asked for, events that are. */
const ENTRY_BYTES = 8
/** `struct timespec` before the entries. */
const TIME_BYTES = 16

/** What one `ppoll` waits for. Rebuilt only when it changes. */
export class PollSet {
  #scratch: Scratch
  #room: number
  #count: number

  constructor(room = 64) {
    this.#room = room
    this.#count = 0
    this.#scratch = new Scratch(TIME_BYTES + room * ENTRY_BYTES)
  }

  get count(): number {
    return this.#count
  }

  clear(): void {
    this.#count = 0
  }

  /** Its index until the next `clear`. */
  add(descriptor: { readonly number: number }, event: 'readable' | 'writable' = 'readable'): number {
    if (this.#count === this.#room) this.#grow()
    const at = TIME_BYTES + this.#count * ENTRY_BYTES
    this.#scratch.view.setInt32(at, descriptor.number, true)
    this.#scratch.view.setUint32(at + 4, event === 'readable' ? POLLIN : POLLOUT, true)
    return this.#count++
  }

  /**
   * How many are ready; 0 after `timeoutUs` (null waits for ever) or when a signal came.
   *
   * @throws NativeError
   */
  wait(timeoutUs: number | null): number {
    const { view, address } = this.#scratch
    for (let i = 0; i < this.#count; i++) view.setUint16(TIME_BYTES + i * ENTRY_BYTES + 6, 0, true)
    if (timeoutUs !== null) {
      const wholeUs = Math.max(0, Math.ceil(timeoutUs))
      this.#scratch.putAddress(0, Math.floor(wholeUs / 1_000_000))
      this.#scratch.putAddress(8, (wholeUs % 1_000_000) * 1000)
    }
    const ready = libc().ppoll(address + TIME_BYTES, this.#count, timeoutUs === null ? 0 : address, 0)
    if (ready >= 0) return ready
    const errno = lastErrno()
    if (errno === 'EINTR') return 0
    throw new NativeError('ppoll', errno)
  }

  /** Readable or writable, or closed by the peer: a read or write would not wait. */
  ready(index: number): boolean {
    const events = this.#scratch.view.getUint16(TIME_BYTES + index * ENTRY_BYTES + 6, true)
    if ((events & POLLNVAL) !== 0) throw new Error('a descriptor is waited for that is not open')
    return events !== 0
  }

  #grow(): void {
    const before = this.#scratch
    this.#room *= 2
    // The old one stays behind: this happens a few times in the life of a loop.
    this.#scratch = new Scratch(TIME_BYTES + this.#room * ENTRY_BYTES)
    this.#scratch.bytes.set(before.bytes)
  }
}

let one: PollSet | null = null

/** Waits for one descriptor; false after `timeoutMs` (0 asks, null waits for ever). */
export function waitFor(
  descriptor: Descriptor,
  event: 'readable' | 'writable',
  timeoutMs: number | null,
): boolean {
  one ??= new PollSet(1)
  one.clear()
  one.add(descriptor, event)
  // Asking only is what every kick and call does: no clock for it.
  const until = timeoutMs === 0 ? 0 : performance.now() + (timeoutMs ?? 0)
  for (;;) {
    const leftMs = timeoutMs === 0 ? 0 : Math.max(0, until - performance.now())
    if (one.wait(timeoutMs === null ? null : leftMs * 1000) > 0) return one.ready(0)
    // A signal ends a wait early, and says nothing about the descriptor.
    if (timeoutMs !== null && leftMs === 0) return false
  }
}
