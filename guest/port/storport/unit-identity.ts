import type { PdoDescription } from '../../kernel/pnp/pdo-description.ts'
import { CapabilityFlag } from '../../kernel/pnp/pnp-layout.ts'
import type { LogicalUnit, UnitIdentity } from './logical-unit.ts'

const DIRECT_ACCESS = 0
const VENDOR_CHARACTERS = 8
const PRODUCT_CHARACTERS = 16
const REVISION_CHARACTERS = 4

/** What a port tells of a unit's PDO, in the names Windows' INFs match. */
export function unitDescription(unit: LogicalUnit): PdoDescription {
  const { path, target, lun } = unit
  const identity = unit.identity ?? NOBODY
  const kind = identity.deviceType === DIRECT_ACCESS ? 'Disk' : 'Other'
  const vendor = padded(identity.vendor, VENDOR_CHARACTERS)
  const product = padded(identity.product, PRODUCT_CHARACTERS)
  const revision = padded(identity.revision, REVISION_CHARACTERS)
  const generic = kind === 'Disk' ? ['GenDisk'] : []
  return {
    deviceId: `SCSI\\${kind}&Ven_${plain(identity.vendor)}&Prod_${plain(identity.product)}`,
    instanceId: [path, target, lun].map((part) => part.toString(16).padStart(2, '0')).join(''),
    hardwareIds: [
      `SCSI\\${kind}${vendor}${product}${revision}`,
      `SCSI\\${kind}${vendor}${product}`,
      `SCSI\\${kind}${vendor}`,
      `SCSI\\${vendor}${product}${revision.slice(0, 1)}`,
      `${vendor}${product}${revision.slice(0, 1)}`,
      ...generic,
    ],
    compatibleIds: [`SCSI\\${kind}`, 'SCSI\\RAW'],
    description: `${identity.vendor} ${identity.product} SCSI ${kind} Device`,
    location: `Bus Number ${path}, Target Id ${target}, LUN ${lun}`,
    capabilities: { flags: identity.removable ? CapabilityFlag.REMOVABLE : 0, address: target },
  }
}

const NOBODY: UnitIdentity = {
  deviceType: DIRECT_ACCESS,
  removable: false,
  vendor: '',
  product: '',
  revision: '',
  serial: '',
}

/** An ID holds no space, no comma and nothing but ASCII. */
function plain(text: string): string {
  return text.replace(/[^\x21-\x2b\x2d-\x7e]/g, '_')
}

function padded(text: string, length: number): string {
  return plain(text.slice(0, length).padEnd(length, ' '))
}
