import type { Elements, Field } from '../../protocol/layout.ts'
import { type GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import type { Window } from '../../protocol/window.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'

const RAM_BYTES_MAX = 2 ** 31

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
  /**
   * 32-bit words, for the requests' own path: an element access costs no call, which an optimizer with a
   * budget for inlining may refuse. Little-endian like the guest, as every machine is that runs this.
   */
  readonly words: Uint32Array<ArrayBuffer>
  /**
   * The same, 8 bytes at a time, only to clear and to copy: half the accesses. A value is never looked at, and
   * a bit pattern that is a NaN is moved as it is.
   */
  readonly doubles: Float64Array<ArrayBuffer>

  /** @throws when the machine's RAM does not begin at address 0, or is larger than 2 GiB. */
  constructor(guest: GuestMemory) {
    const lengthBytes = lengthFromZero(guest)
    const window = guest.window(gpa(0), lengthBytes, 8)
    const views: Uint8Array<ArrayBuffer>[] = []
    guest.lend(gpa(0), lengthBytes, views)
    const [bytes] = views
    if (window === null || bytes === undefined || bytes.length !== lengthBytes) {
      throw new Error('the kernel needs RAM from address 0')
    }
    // Kernel addresses fit 31 bits, so that they are small integers everywhere.
    if (lengthBytes > RAM_BYTES_MAX) throw new Error('the kernel serves at most 2 GiB of RAM')
    this.guest = guest
    this.window = window
    this.bytes = bytes
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)
    this.doubles = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 3)
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

const TWO_32 = 0x1_0000_0000

/** A 64-bit field by the index of its lower word. Kernel addresses have no upper half, and need no arithmetic. */
export function pointer(words: Uint32Array, index: number): number {
  const high = words[index + 1] as number
  return high === 0 ? (words[index] as number) : (words[index] as number) + high * TWO_32
}

export function putPointer(words: Uint32Array, index: number, value: number): void {
  words[index] = value
  words[index + 1] = value < TWO_32 ? 0 : value / TWO_32
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
  /** `memory.words`, and where this record begins in them. */
  readonly words: Uint32Array<ArrayBuffer>
  readonly word: number

  /** An address that is not RAM stops the system: as a word's index it would be another place. */
  constructor(memory: KernelMemory, at: number) {
    if (!(at >= 0 && at < memory.lengthBytes)) keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at)
    this.memory = memory
    this.window = memory.window
    this.at = at
    this.words = memory.words
    this.word = at >>> 2
  }

  /** A field nobody may touch in this state: what a wild pointer does on Windows. */
  protected fault(at: number): never {
    return keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at, 0, this.at)
  }
}
