import { seededRandom } from '../../bench/random.ts'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { User } from '../../guest/user.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import { MmioTransport } from '../../host/virtio/mmio.ts'
import { APICV, type ApicProfile } from '../../hypervisor/apic-profile.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { Machine } from '../../hypervisor/machine.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import { NO_TRACE, type Trace } from '../../protocol/trace.ts'
import type { Violation } from '../../protocol/violation.ts'
import { ByHand } from '../guest/by-hand.ts'
import { LINE, REGISTERS } from '../guest/storport-rig.ts'

export interface WholeStackOptions {
  /** The clock that the backend was opened with, where it needs one. */
  readonly clock?: VirtualClock
  readonly profile?: ApicProfile
  readonly trace?: Trace
  /** Seed of the preemption points, in the kernel and at every exit. */
  readonly seed?: number
  readonly dma?: (memory: GuestMemory) => DmaSpace
}

/**
 * Every room at once: an application on the kernel, the disk class, the port, the miniport, on the hypervisor's
 * processor; behind its registers the block device and a backend.
 */
export class WholeStack {
  readonly memory: GuestMemory
  readonly machine: Machine
  readonly kernel: Kernel
  readonly user: User
  readonly device: BlkDevice
  readonly transport: MmioTransport
  readonly violations: Violation[]
  readonly hand: ByHand

  constructor(backend: DiskBackend, options: WholeStackOptions = {}) {
    const trace = options.trace ?? NO_TRACE
    const random = options.seed === undefined ? null : seededRandom(options.seed)
    this.memory = GuestMemory.ofBytes(16 * 2 ** 20)
    this.machine = new Machine({
      clock: options.clock ?? new VirtualClock({ trace }),
      profile: options.profile ?? APICV,
      ram: this.memory,
      trace,
      preemption: random?.stream('exits') ?? null,
    })
    this.violations = []
    const platform = {
      clock: this.machine.clock,
      random: seededRandom(1).stream('disk0'),
      trace,
      path: 'disk0',
    }
    const dma = options.dma?.(this.memory) ?? new DmaSpace(this.memory)
    this.device = new BlkDevice({ platform, dma, backend, version: '1.3' })
    this.transport = new MmioTransport({
      platform,
      device: this.device,
      line: this.machine.line(LINE),
      violated: (violation) => this.violations.push(violation),
    })
    this.machine.map('disk0', REGISTERS, 0x1000, this.transport)
    this.kernel = new Kernel({
      processor: this.machine.processor.guest,
      version: WINDOWS_VERSIONS[7],
      preemption: random?.stream('kernel') ?? null,
    })
    this.user = new User(this.kernel)
    this.hand = new ByHand(this.kernel)
  }

  /** Runs a body in a guest thread, with everything else, until nothing can go on. */
  run<T>(body: () => Waiting<T>): T {
    let result: { readonly value: T } | null = null
    this.kernel.psCreateSystemThread(function* () {
      result = { value: yield* body() }
    })
    this.machine.start(this.kernel)
    this.machine.drain()
    if (this.kernel.bugCheck !== null) throw this.kernel.bugCheck
    if (this.machine.stopped !== null) throw new Error(this.machine.stopped)
    if (result === null) throw new Error('the thread never ended')
    return (result as { readonly value: T }).value
  }

  /** Loads the drivers and starts their devices: `\\.\PhysicalDrive0` is there then. */
  *boot(): Waiting<DeviceObject> {
    const { kernel, hand } = this
    yield* hand.load()
    expectSuccess(yield* hand.start())
    const [unit] = yield* hand.children()
    const disk = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
    if (unit === undefined || typeof disk === 'number') throw new Error('no disk')
    const added = kernel.call(disk.addDevice)(disk, unit)
    if ((typeof added === 'number' ? added : yield* added) !== NtStatus.SUCCESS) throw new Error('not added')
    expectSuccess((yield* hand.send(unit, PnpMinor.START_DEVICE)).status)
    return unit
  }
}

function expectSuccess(status: string): void {
  if (status !== ntStatusName(NtStatus.SUCCESS)) throw new Error(status)
}
