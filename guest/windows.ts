import type { VirtioVersion } from '../protocol/virtio/features.ts'
import { Disk } from './class/disk/disk.ts'
import { diskDriver } from './class/disk/disk-driver.ts'
import type { Kernel } from './kernel/kernel.ts'
import type { NtStatus } from './kernel/nt-status.ts'
import { ACPI_ROOT, type AcpiNamespace, acpiDriver } from './kernel/pnp/acpi-bus.ts'
import type { ServiceRegistry } from './kernel/pnp/service-registry.ts'
import type { Waiting } from './kernel/thread.ts'
import type { WindowsVersion } from './kernel/version.ts'
import type { Adapter } from './port/storport/adapter.ts'
import { type AdapterAdded, storPortDriver } from './port/storport/storport-driver.ts'
import { blkMiniport } from './virtio/blk-miniport.ts'

/** What is installed: the drivers of this room, and which device gets which. */
export function installedDrivers(
  kernel: Kernel,
  namespace: AcpiNamespace,
  virtio: VirtioVersion,
  adapterAdded?: AdapterAdded,
): ServiceRegistry {
  return {
    services: [
      { name: 'ACPI', entry: acpiDriver(kernel, namespace) },
      { name: 'pvblk', entry: storPortDriver(kernel, blkMiniport(virtio), adapterAdded) },
      { name: 'disk', entry: diskDriver(kernel) },
    ],
    drivers: [
      {
        hardwareIds: ['*PNP0C08'],
        service: 'ACPI',
        className: 'System',
        description: 'Microsoft ACPI-Compliant System',
      },
      {
        hardwareIds: ['ACPI\\LNRO0005'],
        service: 'pvblk',
        className: 'SCSIAdapter',
        description: adapterName(kernel.version.storport),
      },
      { hardwareIds: ['GenDisk'], service: 'disk', className: 'DiskDrive' },
    ],
  }
}

/** Whoever looks at an XP guest's devices sees what XP itself has not. */
function adapterName(storport: WindowsVersion['storport']): string {
  const name = 'Paravane VirtIO block adapter'
  return storport === 'in-box' ? name : `${name} (Storport of Server 2003)`
}

/** Boots: finds the devices of the namespace and starts them. `\\.\PhysicalDrive0` is there afterwards. */
export function* bootWindows(
  kernel: Kernel,
  namespace: AcpiNamespace,
  virtio: VirtioVersion = '1.3',
  adapterAdded?: AdapterAdded,
): Waiting<NtStatus> {
  const registry = installedDrivers(kernel, namespace, virtio, adapterAdded)
  const status = yield* kernel.pnp.boot({ registry, rootDevices: [ACPI_ROOT] })
  yield* kernel.pnp.settle()
  return status
}

/** N of `\\.\PhysicalDriveN`, the disk that stands on an adapter's unit; null when none has started there. */
export function driveNumber(kernel: Kernel, adapter: Adapter): number | null {
  for (const { device } of adapter.units) {
    if (device === null) continue
    const { extension } = kernel.ioGetAttachedDevice(device)
    if (extension instanceof Disk && extension.state === 'started') return extension.number
  }
  return null
}
