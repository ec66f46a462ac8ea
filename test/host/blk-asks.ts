import fc from 'fast-check'
import type { Ask } from './blk-model.ts'
import { DISCARD, IN, OUT, SECURE_ERASE, TYPES, WRITE_ZEROES } from './blk-model.ts'
import type { RawSegment } from './raw-queue.ts'

/** A sector said in terms of a capacity that is known when the request is made. */
export interface SectorPlan {
  readonly from: 'start' | 'end' | 'power'
  readonly delta: number
}

export interface RangePlan {
  readonly at: SectorPlan
  readonly sectors: number
  readonly flags: number
}

/** A request before the capacity is known, and how its bytes are cut and laid out. */
export interface AskPlan {
  readonly type: number
  readonly at: SectorPlan
  readonly headerBytes: number
  readonly outBytes: number
  readonly inBytes: number
  readonly ranges: readonly RangePlan[]
  readonly seed: number
  readonly outCuts: readonly number[]
  readonly inCuts: readonly number[]
  /** Bytes left free before each segment. */
  readonly gaps: readonly number[]
  readonly indirect: boolean
}

const sectorPlan: fc.Arbitrary<SectorPlan> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ from: fc.constant('start' as const), delta: fc.nat(40) }) },
  {
    weight: 4,
    arbitrary: fc.record({ from: fc.constant('end' as const), delta: fc.integer({ min: -9, max: 2 }) }),
  },
  { weight: 1, arbitrary: fc.record({ from: fc.constant('power' as const), delta: fc.nat(64) }) },
)

/** The sector a plan means; powers reach from 2^31 to 2^64 - 1, one below and at each. */
export function sectorOf(plan: SectorPlan, capacity: bigint): bigint {
  if (plan.from === 'start') return BigInt(plan.delta)
  if (plan.from === 'end') return BigInt.asUintN(64, capacity + BigInt(plan.delta))
  return BigInt.asUintN(64, 2n ** BigInt(31 + (plan.delta >> 1)) - BigInt(plan.delta & 1))
}

const cuts = fc.array(fc.nat(1000), { maxLength: 6 })
const rarely = <T>(usual: T, unusual: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: unusual })

const range: fc.Arbitrary<RangePlan> = fc.record({
  at: sectorPlan,
  sectors: fc.oneof({ weight: 8, arbitrary: fc.nat(24) }, { weight: 1, arbitrary: fc.nat(0xffff_ffff) }),
  flags: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(0, 0, 0, 1) },
    { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
  ),
})

/** Requests: mostly lawful, since what is refused at the first look tests nothing behind it. */
export const askPlan: fc.Arbitrary<AskPlan> = fc
  .record({
    type: fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(IN, OUT) },
      { weight: 8, arbitrary: fc.constantFrom(...TYPES) },
      { weight: 1, arbitrary: fc.constantFrom(2, 3, 5, 15, 16, 18, 26, 0x8000_0000, 0xffff_ffff) },
    ),
    at: sectorPlan,
    headerBytes: rarely(16, fc.nat(15)),
    sectors: fc.nat(8),
    strayBytes: rarely(0, fc.nat(40)),
    otherBytes: rarely(0, fc.constantFrom(1, 16, 512)),
    roomBytes: fc.oneof(fc.constantFrom(20, 6), fc.nat(40)),
    mute: rarely(false, fc.constant(true)),
    zeroSector: fc.boolean(),
    ranges: fc.array(range, { minLength: 1, maxLength: 5 }),
    seed: fc.nat(250),
    outCuts: cuts,
    inCuts: cuts,
    gaps: fc.array(fc.nat(3), { minLength: 1, maxLength: 4 }),
    indirect: fc.boolean(),
  })
  .map((plan) => {
    const { type, seed, outCuts, inCuts, gaps, indirect } = plan
    const sizes = sizesOf(plan)
    const at =
      type === IN || type === OUT || !plan.zeroSector ? plan.at : ({ from: 'start', delta: 0 } as const)
    const hasRanges = type === DISCARD || type === WRITE_ZEROES || type === SECURE_ERASE
    return {
      type,
      at,
      seed,
      outCuts,
      inCuts,
      gaps,
      indirect,
      headerBytes: plan.headerBytes,
      ranges: hasRanges ? plan.ranges : [],
      outBytes: plan.headerBytes < 16 ? 0 : sizes.outBytes,
      inBytes: plan.mute ? -1 : sizes.inBytes,
    }
  })

interface Sized {
  readonly type: number
  readonly sectors: number
  readonly strayBytes: number
  readonly otherBytes: number
  readonly roomBytes: number
  readonly ranges: readonly RangePlan[]
}

function sizesOf({ type, sectors, strayBytes, otherBytes, roomBytes, ranges }: Sized): {
  outBytes: number
  inBytes: number
} {
  if (type === IN) return { outBytes: otherBytes, inBytes: sectors * 512 + strayBytes }
  if (type === OUT) return { outBytes: sectors * 512 + strayBytes, inBytes: otherBytes }
  if (type === DISCARD || type === WRITE_ZEROES || type === SECURE_ERASE) {
    return {
      outBytes: ranges.length * 16 + (strayBytes > 20 ? -ranges.length * 16 : strayBytes),
      inBytes: otherBytes,
    }
  }
  if (type === 8 || type === 10) return { outBytes: otherBytes, inBytes: roomBytes }
  return { outBytes: otherBytes, inBytes: otherBytes === 0 ? 0 : strayBytes }
}

/** The request itself, once the capacity is known. */
export function askOf(plan: AskPlan, capacity: bigint): Ask {
  const out = new Uint8Array(plan.outBytes)
  for (let i = 0; i < out.length; i++) out[i] = (plan.seed + i * 7 + (i >> 9)) & 0xff
  const view = new DataView(out.buffer)
  for (const [i, { at, sectors, flags }] of plan.ranges.entries()) {
    if (16 * (i + 1) > out.length) break
    view.setBigUint64(16 * i, sectorOf(at, capacity), true)
    view.setUint32(16 * i + 8, sectors, true)
    view.setUint32(16 * i + 12, flags, true)
  }
  const { type, headerBytes, inBytes } = plan
  return { type, sector: sectorOf(plan.at, capacity), headerBytes, out, inBytes }
}

export interface LaidOut {
  readonly segments: readonly RawSegment[]
  /** Where each writable byte lies, in order; the last one is the status byte. */
  readonly writable: readonly number[]
  /** First address behind it all. */
  readonly end: number
}

/** Cuts a request as its plan says and puts it into memory from `at` on. */
export function layOut(bytes: Uint8Array, ask: Ask, plan: AskPlan, at: number): LaidOut {
  const readable = new Uint8Array(ask.headerBytes + ask.out.length)
  const header = new Uint8Array(16)
  const view = new DataView(header.buffer)
  view.setUint32(0, ask.type, true)
  view.setBigUint64(8, ask.sector, true)
  readable.set(header.subarray(0, ask.headerBytes))
  readable.set(ask.out, ask.headerBytes)
  const segments: RawSegment[] = []
  const writable: number[] = []
  let cursor = at
  const place = (lengthBytes: number, write: boolean) => {
    cursor += plan.gaps[segments.length % plan.gaps.length] ?? 0
    segments.push({ at: cursor, lengthBytes, write })
    cursor += lengthBytes
    return cursor - lengthBytes
  }
  let taken = 0
  for (const lengthBytes of pieceLengths(readable.length, plan.outCuts)) {
    const where = place(lengthBytes, false)
    bytes.set(readable.subarray(taken, taken + lengthBytes), where)
    taken += lengthBytes
  }
  for (const lengthBytes of pieceLengths(ask.inBytes + 1, plan.inCuts)) {
    const where = place(lengthBytes, true)
    for (let i = 0; i < lengthBytes; i++) writable.push(where + i)
  }
  // A chain has at least one descriptor, be it an empty one.
  if (segments.length === 0) place(0, false)
  return { segments, writable, end: cursor }
}

/** Lengths that add up to `total`; some may be 0, which is legal. */
function pieceLengths(total: number, at: readonly number[]): number[] {
  if (total === 0) return []
  const points = at.map((cut) => cut % (total + 1)).sort((a, b) => a - b)
  const lengths: number[] = []
  let from = 0
  for (const point of [...points, total]) {
    lengths.push(point - from)
    from = point
  }
  return lengths
}
