import { seededRandom } from '../../bench/random.ts'
import { type MachineDisk, WindowsMachine } from '../../bench/windows-machine.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import type { AcpiNamespace } from '../../guest/kernel/pnp/acpi-bus.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import type { User } from '../../guest/user.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { APICV, type ApicProfile } from '../../hypervisor/apic-profile.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { Machine } from '../../hypervisor/machine.ts'
import { NO_TRACE, type Trace } from '../../protocol/trace.ts'

export interface WholeStackOptions {
  /** The clock that the backend was opened with, where it needs one. */
  readonly clock?: VirtualClock
  readonly profile?: ApicProfile
  readonly trace?: Trace
  /** Seed of the preemption points, in the kernel and at every exit. */
  readonly seed?: number
}

/** The bench's Windows machine with one disk. */
export class WholeStack {
  readonly windows: WindowsMachine
  readonly disk: MachineDisk

  constructor(backend: DiskBackend, options: WholeStackOptions = {}) {
    const trace = options.trace ?? NO_TRACE
    this.windows = new WindowsMachine({
      clock: options.clock ?? new VirtualClock({ trace }),
      trace,
      random: seededRandom(options.seed ?? 1),
      windows: WINDOWS_VERSIONS[7],
      profile: options.profile ?? APICV,
      virtio: '1.3',
      memoryBytes: 16 * 2 ** 20,
      preemption: options.seed !== undefined,
    })
    this.disk = this.windows.addDisk(backend)
  }

  get machine(): Machine {
    return this.windows.machine
  }
  get kernel(): Kernel {
    return this.windows.kernel
  }
  get user(): User {
    return this.windows.user
  }
  get namespace(): AcpiNamespace {
    return this.windows.namespace
  }

  *boot(): Waiting<boolean> {
    yield* this.windows.boot()
    return true
  }

  run<T>(body: () => Waiting<T>): T {
    return this.windows.runNow(body)
  }
}
