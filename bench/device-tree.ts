import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'
import { createBench } from './bench.ts'
import type { BenchDescription, ProfileName, WindowsName } from './description.ts'
import { works } from './device-health.ts'

export interface DeviceTreeReport {
  readonly schema: 1
  readonly seed: number
  readonly guest: { readonly windows: WindowsName; readonly profile: ProfileName }
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
export async function deviceTree(description: BenchDescription): Promise<DeviceTreeReport> {
  const bench = await createBench(description)
  const { seed, windows, profile } = bench.description
  const { devices } = bench
  await bench.close()
  return { schema: 1, seed, guest: { windows, profile }, devices, working: devices.every(works) }
}
