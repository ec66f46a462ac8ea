import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'
import type { RequirementId } from '../protocol/requirement.ts'
import { REQUIREMENTS } from '../protocol/requirement.ts'
import { explain, type Violation } from '../protocol/violation.ts'
import type { VirtioVersion } from '../protocol/virtio/features.ts'
import type { BenchDisk } from './bench-disk.ts'
import type { ProfileName, VerifyMode, WindowsName } from './description.ts'
import type { PartitionReport } from './drive-facts.ts'
import type { ExitReport } from './exit-tally.ts'
import { type Problem, typeName } from './problem.ts'

/** What a run found, as plain data. All but `timing` follows from the description. */
export interface BenchReport {
  readonly schema: 1
  /** No violation, no wrong data, every request answered, every device works. */
  readonly verified: boolean
  readonly seed: number
  readonly guest: {
    readonly windows: WindowsName
    /** The processor's. */
    readonly profile: ProfileName
    readonly memoryBytes: number
    readonly preemption: boolean
  }
  readonly virtio: VirtioVersion
  /** What hangs on the root of the device tree, as Device Manager shows it. */
  readonly devices: readonly DeviceView[]
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
  /** `\\.\PhysicalDrive0`; null: the guest has no such drive. */
  readonly path: string | null
  readonly serial: string
  readonly sectors: number
  readonly blockBytes: number
  /** A daemon has it: nobody but the guest says what it holds, and its requests are counted but not told apart. */
  readonly daemon: { readonly connections: number } | null
  /** Zeroes that make whole blocks of an image of any length; the guest reads them, the digest has them. */
  readonly paddedBytes: number
  readonly partitionStyle: 'mbr' | 'gpt' | 'none'
  /** MBR: 8 hexadecimal digits; GPT: a GUID; null without a table. */
  readonly diskId: string | null
  /** As the guest's class driver read them. */
  readonly partitions: readonly PartitionReport[]
  readonly verify: Exclude<VerifyMode, 'auto'>
  /** Of the whole disk as the guest read it; null unless all of it was read. */
  readonly sha256: string | null
  /** Bytes the guest read; without a daemon all of them were compared with the backend's own. */
  readonly readBytes: number
  /** Requests the device saw, by type, since power-on. */
  readonly requests: { readonly [type: string]: number }
  readonly doorbells: number
  /** Times that the adapter's service routine ran. */
  readonly interrupts: number
  /** Accesses to InterruptStatus and InterruptACK. */
  readonly interruptStatus: number
  /** VM exits of the run on this disk, by reason; the boot is not among them. */
  readonly exits: readonly ExitReport[]
  readonly price: PriceReport
  /** Events injected at a VM entry, and interrupts delivered without an exit, of every source. */
  readonly injections: number
  readonly deliveries: number
  /**
   * Payload that our code moved from one buffer to another between the application's and the backend's, which is
   * none on this path. What a disk in memory moves to and from its own bytes is its medium's, and not counted.
   */
  readonly bytesCopied: number
  readonly workload: { readonly requests: number; readonly comparedBytes: number }
  readonly problems: number
}

/** VM exits a request of the device, as a sum. */
export interface PriceReport {
  /** Requests of the run, by which the exits are divided. */
  readonly requests: number
  readonly doorbell: number
  readonly interruptStatus: number
  readonly endOfInterrupt: number
  readonly halt: number
  readonly other: number
  readonly total: number
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
  readonly bootSeconds: number
  readonly disks: readonly DiskTiming[]
}

export interface DiskTiming {
  /** Of the read, what comparing and hashing took is not the guest's. */
  readonly readSeconds: number
  readonly verifySeconds: number
  /** Decimal megabytes a second of the read, comparison and digest included. */
  readonly readMegabytesPerSecond: number | null
  readonly workloadSeconds: number
  /** Requests a second of the workload, comparison included. */
  readonly iops: number | null
}

/** Requests that reached a disk's device so far, by the specification's name of their type. */
export function requestCounts({ machine }: BenchDisk): { readonly [type: string]: number } {
  const counts = [...(machine.device.counts ?? [])].sort(([a], [b]) => a - b)
  return Object.fromEntries(counts.map(([type, count]) => [typeName(type), count]))
}

/** Rules broken on a disk: those the device saw the driver break, then those the driver saw the device break. */
export function violationsBy({ machine }: BenchDisk): readonly {
  readonly rule: RequirementId
  readonly count: number
  readonly first: readonly Violation[]
}[] {
  return [...machine.violations.entries(), ...(machine.adapter?.violations.entries() ?? [])]
}

export function violationsOf(disk: BenchDisk): ViolationReport[] {
  return violationsBy(disk).flatMap(({ rule, count, first }) => {
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
