import { copyFileSync, existsSync } from 'node:fs'
import path from 'node:path'
import { BlkDriver, type BlkDriverState } from '../../guest/virtio/blk.ts'
import { BlkCommand, type BlkEnd } from '../../guest/virtio/blk-command.ts'
import { MmioDriverTransport } from '../../guest/virtio/mmio.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { type Gpa, gpa } from '../../protocol/memory.ts'
import type { AccessWidth, GuestPlatform } from '../../protocol/platform.ts'
import { type FeatureSet, featureNames } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'
import { BlkFeature } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import type { Window } from '../../protocol/window.ts'
import { FileMemory } from './file-memory.ts'
import { Qmp } from './qmp.ts'
import { Qtest } from './qtest.ts'

/** The microvm machine with one I/O APIC: eight virtio-mmio slots from pin 16 on, the first device in the last. */
const MACHINE = 'microvm,ioapic2=off,memory-backend=ram'
const REGISTERS_AT = 0xfeb0_0000 + 7 * 512
const LINE = 16 + 7
const MEMORY_BYTES = 64 * 2 ** 20
/** Above what the machine keeps for its firmware. */
const FREE_FROM = 2 ** 20
const RESET_TURNS_MAX = 100_000
/** Interrupts that may follow the last buffer. */
const LATE_MAX = 64

/** A command that remembers how it ended. */
export class Asked extends BlkCommand {
  end: BlkEnd | null = null
  writtenBytes = 0
  endings = 0

  ended(end: BlkEnd, writtenBytes: number): void {
    this.end = end
    this.writtenBytes = writtenBytes
    this.endings++
  }

  /** Status byte, or null while it is out or when the device is gone. */
  get status(): number | null {
    return this.end?.kind === 'status' ? this.end.status : null
  }
}

interface VirtioStatus {
  readonly 'guest-features': {
    readonly transports: readonly string[]
    readonly 'dev-features': readonly string[]
    readonly 'unknown-dev-features'?: number
  }
}

export interface QemuDiskSetup {
  /** The image; QEMU gets a copy. */
  readonly image: string
  readonly deviceOptions?: string
  readonly driveOptions?: string
}

/** The machine our driver believes to be on: QEMU's memory as a file, its registers and lines by qtest. */
export class QemuDisk implements GuestPlatform, AsyncDisposable {
  readonly memory: FileMemory
  readonly clock: VirtualClock
  readonly qtest: Qtest
  readonly violations: Violation[]
  readonly registersAt: Gpa
  readonly #isrs: (() => void)[]
  #top: number

  constructor(setup: QemuDiskSetup) {
    const { deviceOptions = '', driveOptions = '' } = setup
    this.qtest = new Qtest((folder) => {
      copyFileSync(setup.image, path.join(folder, 'image'))
      return [
        ...['-M', MACHINE, '-m', `${MEMORY_BYTES / 2 ** 20}`],
        '-object',
        `memory-backend-file,id=ram,size=${MEMORY_BYTES},mem-path=${path.join(folder, 'memory')},share=on`,
        ...['-global', 'virtio-mmio.force-legacy=false'],
        ...['-drive', `if=none,id=d0,format=raw,file=${path.join(folder, 'image')}${driveOptions}`],
        ...['-device', `virtio-blk-device,id=disk,drive=d0${deviceOptions}`],
      ]
    })
    // From here on its lines are told to us; the answer also says that the memory file is there.
    this.qtest.command('irq_intercept_in /machine/ioapic')
    this.memory = new FileMemory(path.join(this.qtest.folder, 'memory'), MEMORY_BYTES)
    this.clock = new VirtualClock({ turnsMax: RESET_TURNS_MAX })
    this.violations = []
    this.registersAt = gpa(REGISTERS_AT)
    this.#isrs = []
    this.#top = FREE_FROM
  }

  /** The file behind QEMU's disk, as it is now. */
  get image(): string {
    return path.join(this.qtest.folder, 'image')
  }

  driver(features: FeatureSet, queueSize = 256): BlkDriver {
    return new BlkDriver({
      platform: this,
      transport: new MmioDriverTransport(this, this.registersAt),
      line: LINE,
      features,
      queueSize,
      violated: (violation) => this.violations.push(violation),
    })
  }

  /** Names of the features that QEMU itself says were negotiated, sorted. */
  negotiated(): string[] {
    const qmp = new Qmp(this.qtest.monitor)
    const { 'guest-features': known } = qmp.ask('x-query-virtio-status', {
      path: '/machine/peripheral/disk',
    }) as VirtioStatus
    qmp.close()
    const named = [...known.transports, ...known['dev-features']].map((text) =>
      text.replace(/^VIRTIO_(?:BLK_|RING_)?F_/, '').replace(/:.*/, ''),
    )
    // What came after this QEMU's list of names is a number there.
    const unnamed = featureNames(BigInt(known['unknown-dev-features'] ?? 0), CommonFeature, BlkFeature)
    return [...named, ...unnamed].sort()
  }

  /** Starts it, and waits for that in virtual time. */
  started(driver: BlkDriver): BlkDriverState {
    let state: BlkDriverState | null = null
    driver.start((now) => {
      state = now
    })
    this.clock.drain()
    if (state === null) throw new Error('the driver never says whether it started')
    return state
  }

  stopped(driver: BlkDriver): boolean {
    let clean: boolean | null = null
    driver.stop((reset) => {
      clean = reset
    })
    this.clock.drain()
    if (clean === null) throw new Error('the driver never says whether it stopped')
    return clean
  }

  /**
   * Serves interrupts until nothing is out.
   *
   * @throws when the line stays up: a driver has to acknowledge, VIRTIO 1.2 section 4.2.2.2.
   */
  settle(driver: BlkDriver): void {
    while (driver.outstanding > 0) {
      while (!this.qtest.level(LINE)) this.qtest.waitLevel()
      this.#serve()
    }
    // The last buffer may have been found by the interrupt before its own.
    for (let left = LATE_MAX; left > 0; left--) {
      if (this.read(gpa(this.registersAt + Mmio.InterruptStatus), 4) === 0) return
      this.#serve()
    }
    throw new Error('the interrupt line stays up when everything is served')
  }

  #serve(): void {
    for (const isr of this.#isrs) isr()
  }

  /** A page-aligned buffer, as an address for commands and a window for us. */
  buffer(lengthBytes: number): { readonly at: Gpa; readonly window: Window } {
    const at = this.allocate(lengthBytes, 4096)
    const window = this.memory.window(at, lengthBytes, 1)
    if (window === null) throw new Error('memory just allocated cannot be had')
    return { at, window }
  }

  allocate(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#top / alignment) * alignment
    if (!(at + lengthBytes <= MEMORY_BYTES)) throw new Error('guest memory is used up')
    this.#top = at + lengthBytes
    this.memory.window(gpa(at), lengthBytes, 1)?.fill(0, 0, lengthBytes)
    return gpa(at)
  }

  read(at: Gpa, width: AccessWidth): number {
    return this.qtest.read(at, width)
  }

  write(at: Gpa, width: AccessWidth, value: number): void {
    this.qtest.write(at, width, value)
  }

  /** Level of the disk's interrupt line. */
  line(): boolean {
    return this.qtest.level(LINE)
  }

  connect(line: number, isr: () => void): void {
    if (line !== LINE) throw new Error(`there is no interrupt line ${line}`)
    this.#isrs.push(isr)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (existsSync(path.join(this.qtest.folder, 'memory'))) this.memory.close()
    await this.qtest[Symbol.asyncDispose]()
  }
}
