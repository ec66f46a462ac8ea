import type { HostPlatform } from '../../protocol/platform.ts'

/** What a disk can be asked. `zero` may unmap; `erase` must make the old content unreadable. */
export type DiskOp = 'read' | 'write' | 'flush' | 'discard' | 'zero' | 'erase' | 'extents' | 'resize'

export type DiskOutcome =
  | 'ok'
  | 'out-of-range'
  | 'misaligned'
  | 'read-only'
  | 'unsupported'
  | 'no-space'
  | 'medium-error'
  | 'cancelled'
  | 'gone'

/** Wear in the terms of JEDEC eMMC 5.0: 0 is undefined. */
export interface DiskLifetime {
  /** 1 normal, 2 warning, 3 urgent. */
  readonly preEndOfLife: number
  /** Tenths of the lifetime used, 11 exceeded, for each of two kinds of memory. */
  readonly usedTenthsA: number
  readonly usedTenthsB: number
}

/** What a disk is. Read once when it opens, and again whenever `watch` says so. */
export interface DiskFacts {
  readonly lengthBytes: number
  /** Least unit of a request: offsets and lengths are multiples of it. A power of two. */
  readonly blockBytes: number
  /** Unit without a read-modify-write below. A multiple of `blockBytes`. */
  readonly physicalBlockBytes: number
  readonly readOnly: boolean
  /** False while a removable drive is empty. */
  readonly medium: boolean
  /** Answered writes may be lost with the power until a flush is answered. */
  readonly volatileCache: boolean
  /** At most 20 ASCII characters. */
  readonly serial: string
  /** What the backend cannot do, the device does not offer. */
  readonly can: {
    readonly fua: boolean
    readonly zero: boolean
    readonly discard: boolean
    readonly erase: boolean
    readonly resize: boolean
    readonly extents: boolean
  }
  /** Wear, where the backend knows it. */
  readonly lifetime?: DiskLifetime
  /** Every request is answered before `submit` returns. */
  readonly synchronous: boolean
  /**
   * Lent views are met inside `submit` and inside the call that answers, and not there either once the request
   * is `cancelling`: no system call, no other thread has them. So whoever lent may take the memory back by
   * `cancel`, at once; the answer still comes, and has read and written nothing since. Where this is false (a
   * file read under way in another thread) a loan ends with the answer and no sooner.
   */
  readonly privateLoans: boolean
}

export interface DiskExtent {
  readonly offset: number
  readonly lengthBytes: number
  readonly kind: 'data' | 'zero' | 'hole'
}

/** Whoever keeps a request for later and can give it up. */
export interface DiskHolder {
  /** Answer `io` as 'cancelled' soon; do nothing if it cannot be helped any more. */
  cancel(io: DiskIo): void
}

/**
 * One request at the waist, counted in bytes. Subclasses say what an answer means (`finished`); backends
 * call `answer` exactly once, before or after `submit` returns.
 *
 * A flush covers exactly the writes answered before it was submitted; nothing else orders requests.
 */
export abstract class DiskIo {
  readonly op: DiskOp
  /** First byte; 0 for flush and resize. */
  readonly offset: number
  /** Bytes; the new length for resize; 0 for flush. */
  readonly lengthBytes: number
  /**
   * Views of guest memory on loan until the answer, whose lengths add up to `lengthBytes`: where a read
   * goes, what a write takes. Empty otherwise.
   */
  readonly lent: readonly Uint8Array[]
  /** A write is durable when answered; a zero may unmap. */
  readonly fua: boolean
  readonly mayUnmap: boolean
  /** The request's id in the trace. */
  readonly id: number
  /** Set by a holder that keeps the request and could give it up. */
  holder: DiskHolder | null
  cancelling: boolean
  answered: boolean
  /** Filled by the backend before it answers an `extents` request. */
  readonly extents: DiskExtent[]

  constructor(
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: readonly Uint8Array[],
    options: { readonly fua?: boolean; readonly mayUnmap?: boolean; readonly id?: number } = NO_OPTIONS,
  ) {
    this.op = op
    this.offset = offset
    this.lengthBytes = lengthBytes
    this.lent = lent
    this.fua = options.fua ?? false
    this.mayUnmap = options.mayUnmap ?? false
    this.id = options.id ?? 0
    this.holder = null
    this.cancelling = false
    this.answered = false
    this.extents = op === 'extents' ? [] : NO_EXTENTS
  }

  /**
   * The one answer.
   *
   * @param bytesDone bytes transferred from the start; all of them for 'ok' unless said otherwise.
   * @param badOffset the first offset that failed, where known.
   * @throws on a second answer: a mistake of ours, never a peer's.
   */
  answer(outcome: DiskOutcome, bytesDone?: number, badOffset: number | null = null): void {
    if (this.answered) throw new Error(`disk request ${this.op} at ${this.offset} answered twice`)
    this.answered = true
    this.holder = null
    this.finished(outcome, bytesDone ?? (outcome === 'ok' ? this.lengthBytes : 0), badOffset)
  }

  /** Asks whoever holds the request to give it up. The answer still comes, as 'cancelled' or otherwise. */
  cancel(): void {
    if (this.answered) return
    this.cancelling = true
    this.holder?.cancel(this)
  }

  protected abstract finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void

  /**
   * Makes another request of an answered one, with the same options: for its owner, where a backend keeps no
   * request. Anybody else's late second answer would be taken for this one's.
   *
   * @throws while it waits for its answer.
   */
  protected renew(
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: readonly Uint8Array[],
    id: number,
  ): void {
    if (!this.answered) throw new Error(`disk request ${this.op} at ${this.offset} is still out`)
    become(this, op, offset, lengthBytes, lent, id)
    this.answered = false
    this.cancelling = false
  }
}

/** What makes one request different from another: nobody else's to change. */
type RequestFields = { -readonly [field in 'op' | 'offset' | 'lengthBytes' | 'lent' | 'id']: DiskIo[field] }

function become(
  fields: RequestFields,
  op: DiskOp,
  offset: number,
  lengthBytes: number,
  lent: readonly Uint8Array[],
  id: number,
): void {
  fields.op = op
  fields.offset = offset
  fields.lengthBytes = lengthBytes
  fields.lent = lent
  fields.id = id
}

const NO_OPTIONS = {} as const
const NO_EXTENTS: DiskExtent[] = []

/** Facts changed: read them again. `gone` is final: every later request is answered 'gone'. */
export type DiskChange = 'size' | 'medium' | 'gone'
export type DiskListener = (change: DiskChange) => void

/**
 * The lower waist: what stands behind any disk, whatever the protocol in front of it.
 *
 * A backend judges every request against its own current state: callers cannot, since its size may change
 * between their check and the request. No offset or length may throw.
 */
export interface DiskBackend {
  readonly facts: DiskFacts
  /**
   * Every request is answered before `submit` returns, and no reference to one outlives that call: so its owner
   * may make the next of it. For code that visibly stores no request; a layer says nothing, or what the one
   * below says if it stores none itself.
   */
  readonly keepsNoRequest?: boolean
  /** Takes one request; answers it exactly once, now or later. */
  submit(io: DiskIo): void
  /** Tells `listener` of changes until the returned function is called. */
  watch(listener: DiskListener): () => void
  /** Answers what is in flight, lets go of what it holds, then calls `finished` once. */
  close(finished: () => void): void
}

/** Opening may fail with one line that names what was asked for and why it cannot be had. */
export type Opened<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: string }

/** A backend's or wrapper's options after the spec parser: names and texts, each to be parsed once. */
export interface DiskOptions {
  /** What stood before the first `key=value`; undefined when nothing did. */
  readonly argument: string | undefined
  readonly values: ReadonlyMap<string, string>
}

interface KindFacts {
  /** The name before the colon in a spec. */
  readonly kind: string
  /** One line for lists and help. */
  readonly summary: string
  /** A spec a reader can paste. */
  readonly example: string
  /** What the argument means; absent when the kind takes none. */
  readonly argument?: { readonly name: string; readonly meaning: string; readonly required: boolean }
  readonly options: { readonly [key: string]: string }
}

/** The registry's line for a source of data. */
export interface DiskSourceKind extends KindFacts {
  readonly role: 'source'
  open(options: DiskOptions, platform: HostPlatform): Promise<Opened<DiskBackend>>
}

/** The registry's line for a wrapper: a backend over another, which it owns and closes. */
export interface DiskWrapperKind extends KindFacts {
  readonly role: 'wrapper'
  open(options: DiskOptions, platform: HostPlatform, over: DiskBackend): Promise<Opened<DiskBackend>>
}

/** The registry's line for kinds that users bring: what it opens is known once it is loaded. */
export interface DiskModuleKind extends KindFacts {
  readonly role: 'module'
  load(options: DiskOptions): Promise<Opened<DiskSourceKind | DiskWrapperKind>>
}

/** The registry's line for what is no disk but a device, with queues of its own: the bench opens it. */
export interface DiskDeviceKind extends KindFacts {
  readonly role: 'device'
}

export type DiskKind = DiskSourceKind | DiskWrapperKind | DiskModuleKind | DiskDeviceKind
