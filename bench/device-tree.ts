import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'
import { windowsVersion } from '../guest/kernel/version.ts'
import type { DiskBackend } from '../host/disk/backend.ts'
import { openDisk } from '../host/disk/registry.ts'
import { APIC_PROFILES } from '../hypervisor/apic-profile.ts'
import { VirtualClock } from '../hypervisor/clock.ts'
import { NO_TRACE } from '../protocol/trace.ts'
import { BadDescription } from './description.ts'
import { seededRandom } from './random.ts'
import { WindowsMachine } from './windows-machine.ts'

const MEMORY_BYTES = 64 * 2 ** 20

/** A machine to boot, as plain data. */
export interface DeviceTreeDescription {
  readonly seed: number
  /** Specs of disks. */
  readonly disks: readonly string[]
  /** `xp`, `vista` or `7`. */
  readonly windows: string
  /** `2006`, `2010` or `apicv`. */
  readonly profile: string
}

export interface DeviceTreeReport {
  readonly schema: 1
  readonly seed: number
  readonly guest: { readonly windows: string; readonly profile: string }
  /** What hangs on the root, as Device Manager shows it. */
  readonly devices: readonly DeviceView[]
  /** Every device but the hidden ones works. */
  readonly working: boolean
}

/**
 * Boots the Windows guest on the hypervisor and says what Plug and Play found. Disks are only read.
 *
 * @throws BadDescription one line that says what cannot be.
 */
export async function deviceTree(description: DeviceTreeDescription): Promise<DeviceTreeReport> {
  const { seed, disks, windows, profile } = description
  const version = windowsVersion(windows)
  if (typeof version === 'string') throw new BadDescription(version)
  const chosen = Object.values(APIC_PROFILES).find(({ name }) => name === profile)
  if (chosen === undefined) {
    const names = Object.values(APIC_PROFILES).map(({ name }) => name)
    throw new BadDescription(`no processor profile ${JSON.stringify(profile)}: there are ${names.join(', ')}`)
  }
  const clock = new VirtualClock()
  const random = seededRandom(seed)
  const opened: DiskBackend[] = []
  try {
    const machine = new WindowsMachine({
      clock,
      trace: NO_TRACE,
      random,
      windows: version,
      profile: chosen,
      virtio: '1.3',
      memoryBytes: MEMORY_BYTES,
      preemption: false,
    })
    for (const [index, spec] of disks.entries()) {
      const path = `disk${index}`
      const backend = await openDisk(spec, { clock, random: random.stream(path), trace: NO_TRACE, path })
      if (!backend.ok) throw new BadDescription(`${path}: ${backend.error}`)
      opened.push(backend.value)
      machine.addDisk(backend.value)
    }
    await machine.run(function* () {
      yield* machine.boot()
      return true
    })
    const devices = machine.kernel.pnp.tree()?.children ?? []
    return {
      schema: 1,
      seed,
      guest: { windows: version.name, profile: chosen.name },
      devices,
      working: devices.every(works),
    }
  } catch (error) {
    throw error instanceof RangeError ? new BadDescription(error.message) : error
  } finally {
    const closing = opened.map((backend) => new Promise<void>((resolve) => backend.close(resolve)))
    await clock.run()
    await Promise.all(closing)
  }
}

function works(device: DeviceView): boolean {
  return (device.hidden || device.status === 'working') && device.children.every(works)
}
