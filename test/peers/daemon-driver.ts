import { openDaemon } from '../../bench/daemon-disk.ts'
import { seededRandom } from '../../bench/random.ts'
import { sharedGuestMemory } from '../../bench/vhost-user-edge.ts'
import { MmioTransport } from '../../host/virtio/mmio.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import type { Violation } from '../../protocol/violation.ts'
import { BlkSegment, BlkType, SECTOR_BYTES } from '../../protocol/virtio/blk.ts'
import { Window } from '../../protocol/window.ts'
import { type DriverRig, driverRig, TestCommand } from '../guest/driver-rig.ts'
import { TestLine } from '../host/blk-rig.ts'

const MEMORY_BYTES = 16 * 2 ** 20
const PATIENCE_MS = 10_000

/** Sectors that a discard or a write of zeroes is about. */
export interface Extent {
  readonly sector: number
  readonly sectors: number
  readonly unmap?: boolean
}

/**
 * The bare VIRTIO driver before a daemon's disk, with no operating system between: what the Windows-shaped stack never
 * asks a disk for can be asked here.
 */
export class DaemonDriver implements AsyncDisposable {
  readonly rig: DriverRig
  readonly violations: Violation[]
  readonly #clock: VirtualClock
  readonly #close: () => Promise<void>

  private constructor(
    rig: DriverRig,
    violations: Violation[],
    clock: VirtualClock,
    close: () => Promise<void>,
  ) {
    this.rig = rig
    this.violations = violations
    this.#clock = clock
    this.#close = close
  }

  /** The driver, started. @throws when the daemon, or the driver before it, does not get so far. */
  static async start(socket: string): Promise<DaemonDriver> {
    const clock = new VirtualClock({ turnsMax: 1_000_000 })
    const platform = { clock, random: seededRandom(1).stream('disk0'), trace: NO_TRACE, path: 'disk0' }
    const place = { socket, patienceMs: PATIENCE_MS, reconnectMs: 0 }
    const daemon = await openDaemon(place, platform, clock, (line) => {
      throw new Error(line)
    })
    if (typeof daemon === 'string') throw new Error(daemon)
    const { memory, regions, close } = sharedGuestMemory(MEMORY_BYTES)
    const violations: Violation[] = []
    const violated = (violation: Violation): number => violations.push(violation)
    const line = new TestLine()
    const make = daemon.device({ regions, version: '1.3', queueSize: 128, write: true })
    const transport = new MmioTransport({
      platform,
      device: make(platform, new DmaSpace(memory)),
      line,
      violated,
    })
    const rig = driverRig(memory, clock, transport, { queueSize: 64 })
    line.onRise = () => rig.guest.interrupt(() => line.level)
    const driver = new DaemonDriver(rig, violations, clock, async () => {
      rig.driver.stop(() => {})
      await clock.run()
      daemon.close(() => {})
      await clock.run()
      close()
    })
    rig.driver.start(() => {})
    await clock.run()
    if (rig.driver.state.kind !== 'ready')
      throw new Error(`the driver is ${JSON.stringify(rig.driver.state)}`)
    return driver
  }

  /** Sectors, as the driver knows. */
  get sectors(): number {
    const { state } = this.rig.driver
    return state.kind === 'ready' ? state.geometry.capacitySectors : -1
  }

  async read(sector: number, lengthBytes: number): Promise<Uint8Array> {
    const command = new TestCommand(BlkType.IN, sector)
    const at = this.rig.guest.allocate(lengthBytes, SECTOR_BYTES)
    command.data.writable(at, lengthBytes)
    await this.#done(command)
    return this.#memory(at, lengthBytes)
  }

  async write(sector: number, bytes: Uint8Array): Promise<void> {
    const command = new TestCommand(BlkType.OUT, sector)
    const at = this.rig.guest.allocate(bytes.length, SECTOR_BYTES)
    this.rig.guest.memory.window(at, bytes.length, 1)?.copyIn(0, bytes)
    command.data.readable(at, bytes.length)
    await this.#done(command)
  }

  async flush(): Promise<void> {
    await this.#done(new TestCommand(BlkType.FLUSH, 0))
  }

  /** DISCARD or WRITE_ZEROES of one extent. Its status byte. */
  async range(type: number, { sector, sectors, unmap = false }: Extent): Promise<number> {
    const command = new TestCommand(type, 0)
    const at = this.rig.guest.allocate(BlkSegment.$size, 8)
    const segment = this.rig.guest.memory.window(at, BlkSegment.$size, 8) ?? new Window()
    segment.putLe64(BlkSegment.sector, sector)
    segment.putLe32(BlkSegment.num_sectors, sectors)
    segment.putLe32(BlkSegment.flags, unmap ? 1 : 0)
    command.data.readable(at, BlkSegment.$size)
    return await this.#status(command)
  }

  async #done(command: TestCommand): Promise<void> {
    const status = await this.#status(command)
    if (status !== 0) throw new Error(`request ${command.type} ended with status ${status}`)
  }

  async #status(command: TestCommand): Promise<number> {
    const { driver } = this.rig
    if (!driver.submit(command)) throw new Error('the queue is full')
    driver.kick()
    await this.#clock.run()
    if (command.end?.kind !== 'status') throw new Error(`request ${command.type} has no status`)
    return command.end.status
  }

  #memory(at: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes)
    this.rig.guest.memory.window(gpa(at), lengthBytes, 1)?.copyOut(0, bytes)
    return bytes
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}
