import { Descriptor } from './descriptor.ts'
import { F_ADD_SEALS, F_GET_SEALS, libc, MFD_ALLOW_SEALING, MFD_CLOEXEC } from './libc.ts'
import { type Mapping, map } from './mapping.ts'
import { checked, NativeError } from './native-error.ts'

export { lengthOf } from './descriptor.ts'
export { type MapOptions, Mapping, map, mappedBytes, reservedBytes } from './mapping.ts'

const SEAL = 0x1
const SHRINK = 0x2
const GROW = 0x4
const WRITE = 0x8

/** What nobody can do to the memory any more. */
export interface Seals {
  /** No further seals. */
  readonly seal: boolean
  /** Without this one whoever has the descriptor can kill everybody who maps it, by making it shorter. */
  readonly shrink: boolean
  readonly grow: boolean
  readonly write: boolean
}

/** Seals of what is behind the descriptor; an error where there is no such thing (an ordinary file). */
export function seals(descriptor: Descriptor): Seals | NativeError {
  const set = libc().fcntl(descriptor.number, F_GET_SEALS, 0)
  if (set < 0) return NativeError.last('fcntl')
  const has = (seal: number): boolean => (set & seal) !== 0
  return { seal: has(SEAL), shrink: has(SHRINK), grow: has(GROW), write: has(WRITE) }
}

/** Memory with a descriptor, so that another process can map it too. Zeroed. */
export class SharedMemory implements Disposable {
  readonly descriptor: Descriptor
  readonly lengthBytes: number

  private constructor(descriptor: Descriptor, lengthBytes: number) {
    this.descriptor = descriptor
    this.lengthBytes = lengthBytes
  }

  /**
   * `sealed` (the default): its length is fixed for ever.
   *
   * @throws NativeError
   */
  static create(
    name: string,
    lengthBytes: number,
    { sealed = true }: { readonly sealed?: boolean } = {},
  ): SharedMemory {
    const number = checked(libc().memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create')
    const descriptor = new Descriptor(number)
    try {
      checked(libc().ftruncate(number, lengthBytes), 'ftruncate')
      if (sealed) checked(libc().fcntl(number, F_ADD_SEALS, SHRINK | GROW | SEAL), 'fcntl')
    } catch (problem) {
      descriptor.close()
      throw problem
    }
    return new SharedMemory(descriptor, lengthBytes)
  }

  /** Maps all of it, to be written. @throws NativeError */
  map(): Mapping {
    const mapping = map(this.descriptor, 0, this.lengthBytes, { write: true })
    if (mapping instanceof NativeError) throw mapping
    return mapping
  }

  /** The memory lives on where it is mapped. */
  close(): void {
    this.descriptor.close()
  }

  [Symbol.dispose](): void {
    this.descriptor[Symbol.dispose]()
  }
}
