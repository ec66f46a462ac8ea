import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { allocateRelations } from '../../guest/kernel/pnp/device-relations.ts'
import type { DeviceRelation } from '../../guest/kernel/pnp/pnp-minor.ts'
import { PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { type Resource, readResourceList } from '../../guest/kernel/pnp/resource-list.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { PnpRig } from './pnp-rig.ts'
import type { DeviceSpec, LayerSpec } from './scripted-drivers.ts'

export const range = (start: number, more: object = {}) => ({
  kind: 'memory' as const,
  lengthBytes: 0x1000,
  alignment: 0x1000,
  minimum: start,
  maximum: start + 0xfff,
  ...more,
})
export const line = (number: number) => ({
  kind: 'interrupt' as const,
  minimum: number,
  maximum: number,
  trigger: 'level' as const,
  shared: true,
})

/** A layer that keeps START's lists. */
export function watching(
  seen: { raw: readonly Resource[] | null; translated: readonly Resource[] | null }[],
): LayerSpec {
  return {
    handle: (kernel, _device, irp) => {
      if (irp.current.minor === PnpMinor.START_DEVICE) {
        const { argument1, argument2 } = irp.current
        seen.push({
          raw: readResourceList(kernel.parts, argument1),
          translated: readResourceList(kernel.parts, argument2),
        })
      }
      return null
    },
  }
}

/** A layer whose device state the test changes. */
export function stateful(): { readonly spec: LayerSpec; bits: number } {
  const state = {
    bits: 0,
    spec: {
      handle: (kernel, _device, irp, lower) => {
        if (irp.current.minor !== PnpMinor.QUERY_PNP_DEVICE_STATE) return null
        irp.information |= state.bits
        irp.status = NtStatus.SUCCESS
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(lower, irp)
      },
    } satisfies LayerSpec as LayerSpec,
  }
  return state
}

export function invalidateState(rig: PnpRig, id: string): void {
  const pdo = rig.drivers.buses.get(id)?.pdo
  if (pdo === undefined) throw new Error(`no ${id}`)
  rig.machine.run(() => {
    rig.kernel.pnp.ioInvalidateDeviceState(pdo)
    return rig.kernel.pnp.settle()
  })
}

export function booted(children: readonly DeviceSpec[], version = WINDOWS_VERSIONS[7]): PnpRig {
  const rig = new PnpRig({ id: 'r', children }, { version })
  rig.boot()
  return rig
}

/** A layer that answers relations of one type with a device of the test's. */
export function relating(type: DeviceRelation, device: () => DeviceObject | undefined): LayerSpec {
  return {
    handle: (kernel, _device, irp, lower) => {
      const { minor, argument1 } = irp.current
      if (minor !== PnpMinor.QUERY_DEVICE_RELATIONS || argument1 !== type) return null
      const related = device()
      if (related !== undefined) irp.information = allocateRelations(kernel.parts, [related], irp.information)
      irp.status = NtStatus.SUCCESS
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return kernel.ioCallDriver(lower, irp)
    },
  }
}
