import type { RequirementId } from '../protocol/requirement.ts'
import { REQUIREMENTS } from '../protocol/requirement.ts'
import type { Violation } from '../protocol/violation.ts'
import { explain } from '../protocol/violation.ts'
import type { VirtioVersion } from '../protocol/virtio/features.ts'
import type { BenchDisk } from './bench-disk.ts'
import type { VerifyMode } from './description.ts'
import type { Problem } from './problem.ts'

/** What a run found, as plain data. All but `timing` follows from the description. */
export interface BenchReport {
  readonly schema: 1
  /** No violation, no wrong data, every request answered. */
  readonly verified: boolean
  readonly seed: number
  readonly virtio: VirtioVersion
  readonly disks: readonly DiskReport[]
  /** Rules broken, on which disk, by which side. */
  readonly violations: readonly ViolationReport[]
  /** What else went wrong: the first sixteen of each disk. */
  readonly problems: readonly Problem[]
  /** Register accesses that met no device. */
  readonly unclaimedAccesses: number
  /** Virtual microseconds from power-on. */
  readonly virtualUs: number
  readonly timing: Timing
}

export interface DiskReport {
  readonly name: string
  readonly spec: string
  readonly sectors: number
  readonly blockBytes: number
  /** Zeroes that make whole blocks of an image of any length; the driver reads them, the digest has them. */
  readonly paddedBytes: number
  readonly verify: Exclude<VerifyMode, 'auto'>
  /** Of the whole disk as the driver read it; null unless all of it was read. */
  readonly sha256: string | null
  /** Bytes the driver read that were compared with the backend's own. */
  readonly readBytes: number
  /** Requests the device saw, by type. */
  readonly requests: { readonly [type: string]: number }
  readonly doorbells: number
  readonly interrupts: number
  /** Accesses to InterruptStatus and InterruptACK. */
  readonly interruptStatus: number
  readonly workload: { readonly requests: number; readonly comparedBytes: number }
  readonly problems: number
}

export interface ViolationReport {
  readonly disk: string
  readonly side: Violation['side']
  readonly rule: RequirementId
  /** The rule in words. */
  readonly because: string
  readonly count: number
  /** The first one in full. */
  readonly first: string
}

/** Wall-clock figures: true of this machine and this moment only. Null where nothing was measured. */
export interface Timing {
  readonly seconds: number
  readonly disks: readonly DiskTiming[]
}

export interface DiskTiming {
  readonly readSeconds: number
  /** Decimal megabytes a second of the whole-disk read, comparison and digest included. */
  readonly readMegabytesPerSecond: number | null
  readonly workloadSeconds: number
  /** Requests a second of the workload, comparison included. */
  readonly iops: number | null
}

export function violationsOf(disk: BenchDisk): ViolationReport[] {
  return disk.violations.entries().flatMap(({ rule, count, first }) => {
    const [one] = first
    if (one === undefined) return []
    return [
      { disk: disk.name, side: one.side, rule, because: REQUIREMENTS[rule].text, count, first: explain(one) },
    ]
  })
}

export function perSecond(amount: number, seconds: number): number | null {
  return seconds > 0 && amount > 0 ? amount / seconds : null
}
