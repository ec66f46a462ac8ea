import { Ioctl } from '../guest/class/disk/ioctl.ts'
import type { NtStatus } from '../guest/kernel/nt-status.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import { Overlapped, type User, UserFile, UserPort } from '../guest/user.ts'

/** How a request of the application ended. */
export interface DriveEnd {
  readonly slot: number
  readonly status: NtStatus
  /** Bytes moved. */
  readonly information: number
}

interface Under {
  readonly file: UserFile
  readonly request: Overlapped
}

/**
 * `\\.\PhysicalDriveN` as an application has it open: many requests at once, whose ends a completion port tells,
 * by two handles, one of which writes through. Everything is called in a thread of the guest.
 *
 * A request is known by a small number, its slot, which is free again once its end was told.
 */
export class Drive {
  readonly user: User
  readonly #plain: UserFile
  readonly #through: UserFile
  readonly #port: UserPort
  readonly #under: (Under | null)[]

  constructor(user: User, plain: UserFile, through: UserFile, port: UserPort) {
    this.user = user
    this.#plain = plain
    this.#through = through
    this.#port = port
    this.#under = []
  }

  /** Opens drive `number`, or says why not. */
  static *open(user: User, number: number): Waiting<Drive | NtStatus> {
    const port = user.createPort()
    if (!(port instanceof UserPort)) return port
    const path = `\\\\.\\PhysicalDrive${number}`
    const plain = yield* user.open(path, { overlapped: true })
    if (!(plain instanceof UserFile)) {
      yield* port.close()
      return plain
    }
    const through = yield* user.open(path, { overlapped: true, writeThrough: true })
    if (!(through instanceof UserFile)) {
      yield* plain.close()
      yield* port.close()
      return through
    }
    for (const file of [plain, through]) file.associate(port, 1)
    return new Drive(user, plain, through, port)
  }

  /** Starts a read or write. Null: its end comes by `next`; a status: it was refused. */
  *begin(
    slot: number,
    write: boolean,
    buffer: number,
    lengthBytes: number,
    offset: number,
    writeThrough = false,
  ): Waiting<NtStatus | null> {
    const file = writeThrough ? this.#through : this.#plain
    return this.#begun(slot, file, yield* file.begin(write, buffer, lengthBytes, offset, slot + 1))
  }

  /** Starts IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES with what lies in the buffer. */
  *beginTrim(slot: number, buffer: number, lengthBytes: number): Waiting<NtStatus | null> {
    const file = this.#plain
    const code = Ioctl.STORAGE_MANAGE_DATA_SET_ATTRIBUTES
    return this.#begun(slot, file, yield* file.beginControl(code, buffer, lengthBytes, 0, 0, slot + 1))
  }

  /** FlushFileBuffers: waits for its end. */
  flush(): Waiting<NtStatus> {
    return this.#plain.flush()
  }

  /** Waits for the next end of a request. */
  *next(): Waiting<DriveEnd> {
    const packet = yield* this.#port.next()
    if (typeof packet === 'number') throw new Error(`a completion port answers ${packet}`)
    const { apcContext, status, information } = packet
    const slot = apcContext - 1
    const under = this.#under[slot]
    if (under === undefined || under === null) throw new Error(`a packet of no request: ${apcContext}`)
    this.#under[slot] = null
    under.file.told(under.request)
    return { slot, status, information }
  }

  /** Every request has ended. */
  *close(): Waiting<void> {
    yield* this.#plain.close()
    yield* this.#through.close()
    yield* this.#port.close()
  }

  #begun(slot: number, file: UserFile, begun: Overlapped | NtStatus): NtStatus | null {
    if (!(begun instanceof Overlapped)) return begun
    this.#under[slot] = { file, request: begun }
    return null
  }
}
