import type { CompletionPacket } from './kernel/completion-port.ts'
import type { Kernel } from './kernel/kernel.ts'
import { IO_STATUS_BLOCK } from './kernel/layout.ts'
import { NtStatus, ntError, ntSuccess } from './kernel/nt-status.ts'
import { blockInformation, blockStatus, putBlockStatus } from './kernel/status-block.ts'
import type { Waiting } from './kernel/thread.ts'

/** How a request ended, as an application learns it. */
export interface IoResult {
  readonly status: NtStatus
  /** Bytes moved; 0 on an error. */
  readonly information: number
}

export interface OpenOptions {
  readonly read?: boolean
  readonly write?: boolean
  /** FILE_FLAG_OVERLAPPED: several requests at once. */
  readonly overlapped?: boolean
  /** FILE_FLAG_NO_BUFFERING. */
  readonly unbuffered?: boolean
  /** FILE_FLAG_WRITE_THROUGH. */
  readonly writeThrough?: boolean
}

const SLOT_BYTES = IO_STATUS_BLOCK.$size
const SLOTS = 256

/** A request under way: OVERLAPPED. */
export class Overlapped {
  /** IO_STATUS_BLOCK, in the application's memory. */
  readonly iosb: number
  /** Event that is set when it ends; 0: the completion port tells. */
  readonly event: number
  /** What the call itself answered. */
  answer: NtStatus

  constructor(iosb: number, event: number) {
    this.iosb = iosb
    this.event = event
    this.answer = NtStatus.PENDING
  }

  answered(answer: NtStatus): this {
    this.answer = answer
    return this
  }
}

/**
 * An application: what it calls are Windows' names without their Win32 clothes. Everything that answers
 * `Waiting` is called with `yield*` in a thread of the guest. Buffers are addresses from `allocate`.
 */
export class User {
  readonly kernel: Kernel
  #page: number
  readonly #free: number[]

  constructor(kernel: Kernel) {
    this.kernel = kernel
    this.#page = 0
    this.#free = []
  }

  /** VirtualAlloc: a zeroed buffer, or 0. */
  allocate(lengthBytes: number, offsetBytes = 0): number {
    return this.kernel.parts.space.allocateUser(lengthBytes, { offsetBytes })
  }

  /** The same with MEM_LARGE_PAGES: memory that lies side by side, as far as there is such. */
  allocateLarge(lengthBytes: number): number {
    return this.kernel.parts.space.allocateUser(lengthBytes, { largePages: true })
  }

  /** A buffer's bytes without a copy: an application sees them as one, in RAM they are pieces. */
  views(buffer: number, lengthBytes: number): readonly Uint8Array<ArrayBuffer>[] | null {
    return this.kernel.parts.space.views(buffer, lengthBytes)
  }

  free(buffer: number): void {
    this.kernel.parts.space.freeUser(buffer)
  }

  /** Copies bytes into a buffer; false when it is not all there. */
  put(buffer: number, bytes: Uint8Array): boolean {
    return this.kernel.parts.space.copyIn(buffer, bytes)
  }

  /** Copies bytes out of a buffer; null when it is not all there. */
  get(buffer: number, lengthBytes: number): Uint8Array<ArrayBuffer> | null {
    const bytes = new Uint8Array(lengthBytes)
    return this.kernel.parts.space.copyOut(buffer, bytes) ? bytes : null
  }

  /** CreateFile of a device: `\\.\PhysicalDrive0`, `\\.\Harddisk0Partition1`. */
  *open(path: string, options: OpenOptions = {}): Waiting<UserFile | NtStatus> {
    const name = nativeName(path)
    if (name === null) return NtStatus.OBJECT_NAME_INVALID
    const overlapped = options.overlapped === true
    const { status, handle } = yield* this.kernel.nt.createFile(name, {
      read: options.read ?? true,
      write: options.write ?? true,
      synchronous: !overlapped,
      unbuffered: options.unbuffered ?? false,
      writeThrough: options.writeThrough ?? false,
    })
    return ntSuccess(status) ? new UserFile(this, handle, overlapped) : status
  }

  /**
   * SetupDiGetClassDevs for a device interface class, DIGCF_PRESENT: paths that `open` takes, of devices that work.
   * @param guid as `InterfaceClass` has it.
   */
  deviceInterfaces(guid: string): string[] {
    const links = this.kernel.pnp.interfaces.list(guid)
    return links.map((link) => `\\\\?\\${link.slice('\\??\\'.length)}`)
  }

  /** CreateIoCompletionPort without a file. */
  createPort(): UserPort | NtStatus {
    const { status, handle } = this.kernel.nt.createIoCompletion()
    return ntSuccess(status) ? new UserPort(this, handle) : status
  }

  /** The process ends: memory of its own that requests used. Nothing may be under way. */
  release(): void {
    if (this.#page !== 0) this.free(this.#page)
    this.#page = 0
    this.#free.length = 0
  }

  /** An I/O status block; 0 when there is none left. */
  takeIosb(): number {
    if (this.#page === 0) {
      this.#page = this.allocate(SLOTS * SLOT_BYTES)
      if (this.#page === 0) return 0
      for (let slot = SLOTS - 1; slot >= 0; slot--) this.#free.push(this.#page + slot * SLOT_BYTES)
    }
    const iosb = this.#free.pop() ?? 0
    if (iosb !== 0) putBlockStatus(this.kernel.parts.space, iosb, NtStatus.PENDING)
    return iosb
  }

  giveIosb(iosb: number): void {
    this.#free.push(iosb)
  }

  /** What the kernel wrote there; PENDING until it did. */
  readIosb(iosb: number): IoResult {
    const { space } = this.kernel.parts
    const status = blockStatus(space, iosb)
    if (status === null) return { status: NtStatus.ACCESS_VIOLATION, information: 0 }
    return resultOf(status, blockInformation(space, iosb) ?? 0)
  }
}

/** An open device. */
export class UserFile {
  readonly user: User
  readonly handle: number
  readonly overlapped: boolean
  #ported: boolean

  constructor(user: User, handle: number, overlapped: boolean) {
    this.user = user
    this.handle = handle
    this.overlapped = overlapped
    this.#ported = false
  }

  /** ReadFile, and waits for its end. */
  *read(buffer: number, lengthBytes: number, byteOffset: number): Waiting<IoResult> {
    return yield* this.#transfer(false, buffer, lengthBytes, byteOffset)
  }

  /** WriteFile, and waits for its end. */
  *write(buffer: number, lengthBytes: number, byteOffset: number): Waiting<IoResult> {
    return yield* this.#transfer(true, buffer, lengthBytes, byteOffset)
  }

  *#transfer(write: boolean, buffer: number, lengthBytes: number, byteOffset: number): Waiting<IoResult> {
    const begun = yield* this.begin(write, buffer, lengthBytes, byteOffset)
    return begun instanceof Overlapped ? yield* this.result(begun) : resultOf(begun, 0)
  }

  /** FlushFileBuffers. */
  *flush(): Waiting {
    const iosb = this.user.takeIosb()
    if (iosb === 0) return NtStatus.NO_MEMORY
    const status = yield* this.user.kernel.nt.flushBuffersFile(this.handle, iosb)
    this.user.giveIosb(iosb)
    return status
  }

  /** DeviceIoControl, and waits for its end; `bytes` are those that came back. */
  *control(
    code: number,
    input: Uint8Array,
    outputBytes: number,
  ): Waiting<IoResult & { readonly bytes: Uint8Array<ArrayBuffer> }> {
    const { user } = this
    const room = user.allocate(Math.max(1, input.length + outputBytes))
    const failed = { status: NtStatus.NO_MEMORY, information: 0, bytes: new Uint8Array(0) }
    if (room === 0) return failed
    const output = room + input.length
    user.put(room, input)
    const begun = yield* this.beginControl(code, room, input.length, output, outputBytes)
    const result = begun instanceof Overlapped ? yield* this.result(begun) : resultOf(begun, 0)
    const bytes = user.get(output, Math.min(result.information, outputBytes)) ?? failed.bytes
    user.free(room)
    return { ...result, bytes }
  }

  /**
   * Starts a transfer. Its end is told by its event, or by the port the file is associated with, where
   * `context` names it (not 0). A status: it was refused, and nothing will be told.
   */
  *begin(
    write: boolean,
    buffer: number,
    lengthBytes: number,
    byteOffset: number,
    context = 0,
  ): Waiting<Overlapped | NtStatus> {
    const { nt } = this.user.kernel
    const request = this.#overlapped()
    if (!(request instanceof Overlapped)) return request
    const { iosb, event } = request
    const asked = { buffer, lengthBytes, byteOffset, iosb, event, apcContext: context }
    const answer = yield* write ? nt.writeFile(this.handle, asked) : nt.readFile(this.handle, asked)
    return ntError(answer) ? yield* this.#refused(request, answer) : request.answered(answer)
  }

  /** Starts a device control whose buffers are the caller's. */
  *beginControl(
    code: number,
    input: number,
    inputBytes: number,
    output: number,
    outputBytes: number,
    context = 0,
  ): Waiting<Overlapped | NtStatus> {
    const request = this.#overlapped()
    if (!(request instanceof Overlapped)) return request
    const { iosb, event } = request
    const asked = { code, input, inputBytes, output, outputBytes, iosb, event, apcContext: context }
    const answer = yield* this.user.kernel.nt.deviceIoControlFile(this.handle, asked)
    return ntError(answer) ? yield* this.#refused(request, answer) : request.answered(answer)
  }

  #overlapped(): Overlapped | NtStatus {
    const { user } = this
    const iosb = user.takeIosb()
    if (iosb === 0) return NtStatus.NO_MEMORY
    if (!this.overlapped || this.#ported) return new Overlapped(iosb, 0)
    const { status, handle } = user.kernel.nt.createEvent(true, false)
    if (ntSuccess(status)) return new Overlapped(iosb, handle)
    user.giveIosb(iosb)
    return status
  }

  /** An error that was not PENDING first is all the application will hear; a synchronous call has waited already. */
  *#refused(request: Overlapped, answer: NtStatus): Waiting<NtStatus> {
    yield* this.end(request)
    return answer
  }

  /** GetOverlappedResult: waits for the end and gives the request back. */
  *result(request: Overlapped): Waiting<IoResult> {
    if (request.answer === NtStatus.PENDING && request.event !== 0) {
      yield* this.user.kernel.nt.waitForSingleObject(request.event)
    }
    const result = this.user.readIosb(request.iosb)
    yield* this.end(request)
    return result
  }

  /** HasOverlappedIoCompleted. */
  isDone(request: Overlapped): boolean {
    return this.user.readIosb(request.iosb).status !== NtStatus.PENDING
  }

  /** Gives back what a request used, once its end was told. */
  *end(request: Overlapped): Waiting<void> {
    this.told(request)
    if (request.event !== 0) yield* this.user.kernel.nt.close(request.event)
  }

  /** The same for a request whose end a port told, which has no event. */
  told(request: Overlapped): void {
    this.user.giveIosb(request.iosb)
  }

  /** CancelIo: what this thread started. */
  cancel(): Waiting {
    return this.user.kernel.nt.cancelIoFile(this.handle)
  }

  /**
   * CancelIoEx: any thread's, one or all, without waiting for their ends. NOT_FOUND when nothing was under way;
   * NOT_IMPLEMENTED on Windows XP, which has CancelIo alone.
   */
  cancelEx(request: Overlapped | null = null): NtStatus {
    return this.user.kernel.nt.cancelIoFileEx(this.handle, request?.iosb ?? 0)
  }

  /** Ends are told by the port from now on. */
  associate(port: UserPort, key: number): NtStatus {
    const status = this.user.kernel.nt.associatePort(this.handle, port.handle, key)
    if (ntSuccess(status)) this.#ported = true
    return status
  }

  /** CloseHandle. */
  close(): Waiting {
    return this.user.kernel.nt.close(this.handle)
  }
}

/** A completion port. */
export class UserPort {
  readonly user: User
  readonly handle: number

  constructor(user: User, handle: number) {
    this.user = user
    this.handle = handle
  }

  /** GetQueuedCompletionStatus: the next packet, or TIMEOUT. */
  next(timeoutUs: number | null = null): Waiting<CompletionPacket | NtStatus> {
    return this.user.kernel.nt.removeIoCompletion(this.handle, timeoutUs)
  }

  close(): Waiting {
    return this.user.kernel.nt.close(this.handle)
  }
}

function resultOf(status: NtStatus, information: number): IoResult {
  return { status, information: ntError(status) || status === NtStatus.PENDING ? 0 : information }
}

/** `\\.\name` and `\\?\name` as the object manager knows them; null for anything else. */
function nativeName(path: string): string | null {
  const found = /^\\\\[.?]\\([^\\/]+)$/.exec(path)
  return found === null ? null : `\\??\\${found[1]}`
}
