import assert from 'node:assert/strict'
import {
  type DiskBackend,
  type DiskFacts,
  DiskIo,
  type DiskOp,
  type DiskOutcome,
} from '../../host/disk/backend.ts'

/** A disk under test. */
export interface DiskSubject {
  readonly name: string
  /** A fresh disk each time, at least 128 KiB long; what it holds at first does not matter. */
  open(): Promise<DiskBackend>
  /** Runs the clock that its platform was given until nothing is left to do. */
  settle(): Promise<void>
  /** Makes what is behind the disk opened last shorter, as another program might. */
  cut?(lengthBytes: number): void
}

/** What a case asks of a disk; plain data, so that a list can show why one does not apply. */
export type DiskNeed =
  | 'writable'
  | 'read-only'
  | 'fua'
  | 'zero'
  | 'discard'
  | 'erase'
  | 'resize'
  | 'extents'
  | 'more than 4 GiB'
  | 'blocks of more than a byte'
  | 'something unsupported'
  | 'cut'

/** One promise of the waist. `run` throws when it is broken. */
export interface DiskCase {
  readonly name: string
  readonly needs: readonly DiskNeed[]
  run(subject: DiskSubject): Promise<void>
}

/** The needs of `diskCase` that a disk does not meet: the case applies when there are none. */
export function unmetNeeds(diskCase: DiskCase, facts: DiskFacts, subject: DiskSubject): DiskNeed[] {
  const { can } = facts
  const met: Record<DiskNeed, boolean> = {
    writable: !facts.readOnly,
    'read-only': facts.readOnly,
    fua: can.fua && !facts.readOnly,
    zero: can.zero && !facts.readOnly,
    discard: can.discard && !facts.readOnly,
    erase: can.erase && !facts.readOnly,
    resize: can.resize && !facts.readOnly,
    extents: can.extents,
    'more than 4 GiB': facts.lengthBytes >= 2 ** 32 + 2 ** 20,
    'blocks of more than a byte': facts.blockBytes > 1,
    'something unsupported': Object.values(can).includes(false),
    cut: subject.cut !== undefined,
  }
  return diskCase.needs.filter((need) => !met[need])
}

/** A request that remembers its answer. A second answer throws where it is given. */
export class TestIo extends DiskIo {
  outcome: DiskOutcome | null = null
  bytesDone = Number.NaN
  badOffset: number | null = null
  /** Runs inside the answer. */
  onAnswer: (() => void) | null = null

  protected finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    this.outcome = outcome
    this.bytesDone = bytesDone
    this.badOffset = badOffset
    this.onAnswer?.()
  }
}

export interface DiskFlags {
  readonly fua?: boolean
  readonly mayUnmap?: boolean
}

/** A disk opened for one case, and short ways of asking it. */
export class OpenSubject {
  readonly subject: DiskSubject
  readonly disk: DiskBackend

  private constructor(subject: DiskSubject, disk: DiskBackend) {
    this.subject = subject
    this.disk = disk
  }

  /** Opens a disk, runs `body`, and closes the disk whatever happened. */
  static async with(subject: DiskSubject, body: (open: OpenSubject) => Promise<void>): Promise<void> {
    const open = new OpenSubject(subject, await subject.open())
    try {
      await body(open)
    } finally {
      await open.close()
    }
  }

  get facts(): DiskFacts {
    return this.disk.facts
  }

  get block(): number {
    return this.disk.facts.blockBytes
  }

  get lengthBytes(): number {
    return this.disk.facts.lengthBytes
  }

  /** Submits without waiting. */
  start(
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: Uint8Array[] = [],
    flags: DiskFlags = {},
  ): TestIo {
    const io = new TestIo(op, offset, lengthBytes, lent, flags)
    this.disk.submit(io)
    if (this.facts.synchronous) {
      assert.ok(io.answered, `${op} at ${offset}: synchronous, yet not answered when submit returned`)
    }
    return io
  }

  /** Submits and waits for the answer. */
  async ask(
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: Uint8Array[] = [],
    flags: DiskFlags = {},
  ): Promise<TestIo> {
    const io = this.start(op, offset, lengthBytes, lent, flags)
    await this.settle()
    assert.ok(io.answered, `${op} of ${lengthBytes} at ${offset} was never answered`)
    return io
  }

  /** Asks, and insists on 'ok' and on every byte. */
  async must(
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: Uint8Array[] = [],
    flags: DiskFlags = {},
  ): Promise<TestIo> {
    const io = await this.ask(op, offset, lengthBytes, lent, flags)
    assert.equal(io.outcome, 'ok', `${op} of ${lengthBytes} at ${offset}`)
    assert.equal(io.bytesDone, lengthBytes, `bytes done of ${op} at ${offset}`)
    return io
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes).fill(0xee)
    await this.must('read', offset, lengthBytes, [bytes])
    return bytes
  }

  async write(offset: number, bytes: Uint8Array, flags: DiskFlags = {}): Promise<void> {
    await this.must('write', offset, bytes.length, [bytes], flags)
  }

  async settle(): Promise<void> {
    if (!this.facts.synchronous) await this.subject.settle()
  }

  /** Closes and waits; insists that it ends, and once. */
  async close(): Promise<void> {
    let ends = 0
    this.disk.close(() => {
      ends += 1
    })
    await this.subject.settle()
    assert.equal(ends, 1, 'close: times finished')
  }
}

/** Bytes that differ from place to place, never zero, and from one `seed` to another. */
export function noise(lengthBytes: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  let state = Math.imul(seed + 1, 0x9e3779b1) >>> 0
  for (let index = 0; index < lengthBytes; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[index] = 1 + ((state >>> 24) % 255)
  }
  return bytes
}

/** Compares without printing megabytes. */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assert.equal(actual.length, expected.length, `${what}: length`)
  for (let index = 0; index < actual.length; index++) {
    if (actual[index] !== expected[index]) {
      assert.fail(`${what}: byte ${index} is ${actual[index]}, expected ${expected[index]}`)
    }
  }
}

export const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0)
