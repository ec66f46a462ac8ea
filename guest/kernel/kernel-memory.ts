import type { Elements, Field } from '../../protocol/layout.ts'
import { type GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import type { Window } from '../../protocol/window.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'

/**
 * RAM as the kernel sees it: kernel addresses are physical addresses (identity), and one window reaches all
 * kernel objects. Addresses of users and of system mappings lie far above, in `AddressSpace`.
 */
export class KernelMemory {
  readonly guest: GuestMemory
  /** Address 0 is the window's first byte, so an address is an offset into it. */
  readonly window: Window
  /** The same bytes, lent once: what goes through here is pinned, and no EPT takes it away. */
  readonly bytes: Uint8Array<ArrayBuffer>

  /** @throws when the machine's RAM does not begin at address 0. */
  constructor(guest: GuestMemory) {
    const lengthBytes = lengthFromZero(guest)
    const window = guest.window(gpa(0), lengthBytes, 8)
    const views: Uint8Array<ArrayBuffer>[] = []
    guest.lend(gpa(0), lengthBytes, views)
    const [bytes] = views
    if (window === null || bytes === undefined || bytes.length !== lengthBytes) {
      throw new Error('the kernel needs RAM from address 0')
    }
    this.guest = guest
    this.window = window
    this.bytes = bytes
  }

  get lengthBytes(): number {
    return this.bytes.length
  }

  zero(at: number, lengthBytes: number): void {
    this.bytes.fill(0, at, at + lengthBytes)
  }

  pointer(at: number): number {
    return this.window.le64(at as Field<'le64'>)
  }

  putPointer(at: number, value: number): void {
    this.window.putLe64(at as Field<'le64'>, value)
  }
}

/** Whole pages of RAM from address 0 on: what lies behind a hole is no kernel memory. */
function lengthFromZero(guest: GuestMemory): number {
  let low = 0
  let high = Math.floor(guest.end / PAGE_BYTES)
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (guest.backed(gpa(0), middle * PAGE_BYTES)) low = middle
    else high = middle - 1
  }
  return low * PAGE_BYTES
}

/** A field of a structure inside another one: the offsets add up. */
export function within<F extends number>(outer: Elements<unknown>, inner: F): F {
  return ((outer as number) + inner) as F
}

/**
 * A kernel object, as code sees it: an address with named fields. It holds no state of its own, so two views
 * of one address are one object.
 */
export class KernelRecord {
  readonly memory: KernelMemory
  readonly window: Window
  readonly at: number

  constructor(memory: KernelMemory, at: number) {
    this.memory = memory
    this.window = memory.window
    this.at = at
  }

  /** A field nobody may touch in this state: what a wild pointer does on Windows. */
  protected fault(at: number): never {
    return keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at, 0, this.at)
  }
}
