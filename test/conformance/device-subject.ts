import type { AccessWidth } from '../../protocol/platform.ts'
import { LiteralBlkDriver } from './literal-blk-driver.ts'
import type { Requirement, RequirementCase } from './requirement-case.ts'
import { verdictOf } from './requirement-case.ts'

/** The disk behind a device: at least 64 sectors; what it holds at first does not matter. */
export type DiskKind = 'writable' | 'read-only'

/** A virtio-mmio block device that nobody has touched, and everything a driver can reach of it. */
export interface DeviceUnderTest {
  /** Guest memory that is the suite's alone: page-aligned, at least 64 KiB. */
  readonly freeAt: number
  /** A register access as a driver makes it, `offset` from the start of the register range. */
  read(offset: number, width: AccessWidth): number
  write(offset: number, width: AccessWidth, value: number): void
  /** Guest memory, by guest-physical address. */
  peek(at: number, lengthBytes: number): Uint8Array
  poke(at: number, bytes: Uint8Array): void
  /** Level of the interrupt line. */
  line(): boolean
  /** Lets the device work until `done` says so, or until it has nothing left to do, or had far too long. */
  run(done: () => boolean): void
  /** Lets the device work until it has nothing left to do, or had time enough to do what it should not. */
  idle(): void
  /** Makes the disk shorter or longer behind the device's back; absent where that cannot be done. */
  resize?(sectors: number): void
  /** Ends it. */
  close(): Promise<void>
}

export interface DeviceSubject {
  readonly name: string
  /** A fresh device each time. */
  open(disk: DiskKind): Promise<DeviceUnderTest>
}

export type DeviceCase = RequirementCase<DeviceSubject>

/** What makes a device case besides its clause. */
export interface DeviceCaseParts extends Omit<Requirement, 'party' | 'gate' | 'level'> {
  readonly level?: 'should'
  readonly gate?: Requirement['gate']
  /** A writable one when left out. */
  readonly disk?: DiskKind
  /** @throws Broken or Inapplicable. */
  readonly body: (driver: LiteralBlkDriver) => void
}

export function deviceCase(parts: DeviceCaseParts): DeviceCase {
  const { body, disk = 'writable', gate = [], level = 'must', ...requirement } = parts
  return {
    ...requirement,
    party: 'device',
    level,
    gate,
    run: (subject) =>
      verdictOf(async () => {
        const device = await subject.open(disk)
        try {
          body(new LiteralBlkDriver(device, gate))
        } finally {
          await device.close()
        }
      }),
  }
}
