import { ReportLunsData, ScsiOp, Vpd } from '../../../protocol/scsi.ts'
import { Window } from '../../../protocol/window.ts'
import type { Waiting } from '../../kernel/thread.ts'
import type { PortConfiguration } from '../miniport.ts'
import { SrbStatus } from '../srb.ts'
import type { Adapter } from './adapter.ts'
import { LogicalUnit, type UnitIdentity } from './logical-unit.ts'
import { type PortCommandResult, portCommand } from './port-command.ts'

const INQUIRY_BYTES = 36
const SERIAL_BYTES = 64
const LUNS_BYTES = 8 + 8 * 64
const REMOVABLE = 0x80
/** Peripheral qualifier 3: there is no such unit; 1: nothing is connected to it. */
const CONNECTED = 0

/**
 * Looks for units on every bus and target: REPORT LUNS to unit 0, then INQUIRY of each. Units that answer no
 * more are marked absent; those that are found again stay what they were. False when memory is short: what was
 * not asked stays as it was, too.
 */
export function* scanAdapter(adapter: Adapter, configuration: PortConfiguration): Waiting<boolean> {
  const { numberOfBuses, maximumNumberOfTargets, maximumNumberOfLogicalUnits } = configuration
  for (let path = 0; path < numberOfBuses; path++) {
    for (let target = 0; target < maximumNumberOfTargets; target++) {
      const luns = yield* reportedLuns(adapter, path, target)
      if (luns === null) return false
      for (const unit of adapter.units) {
        if (unit.path === path && unit.target === target && !luns.includes(unit.lun)) unit.present = false
      }
      for (const lun of luns) {
        if (lun < maximumNumberOfLogicalUnits && !(yield* look(adapter, path, target, lun))) return false
      }
    }
  }
  return true
}

/** Null when memory is short. */
function* reportedLuns(adapter: Adapter, path: number, target: number): Waiting<number[] | null> {
  const known = adapter.unitAt(path, target, 0)
  const unit = known ?? candidate(adapter, path, target, 0)
  const cdb = [ScsiOp.REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, LUNS_BYTES >>> 8, LUNS_BYTES & 0xff, 0, 0]
  const told = yield* portCommand(adapter, unit, { cdb, dataBytes: LUNS_BYTES })
  if (known === undefined) forget(adapter, unit)
  if (told === null) return null
  const { srbStatus, data } = told
  const answered = srbStatus === SrbStatus.SUCCESS || srbStatus === SrbStatus.DATA_OVERRUN
  // Old targets do not know the command: unit 0 is asked for all the same.
  if (!answered || data.length < ReportLunsData.$size) return [0]
  const window = new Window(data)
  const said = window.be32(ReportLunsData.lengthBytes)
  const count = Math.floor(Math.min(said, data.length - ReportLunsData.$size) / 8)
  const luns = new Set<number>()
  for (let index = 0; index < count; index++) {
    // Peripheral device addressing: the number is the second byte.
    luns.add(window.be16((ReportLunsData.luns + index * 8) as never) & 0xff)
  }
  return [...luns].sort((a, b) => a - b)
}

/** False when memory is short. */
function* look(adapter: Adapter, path: number, target: number, lun: number): Waiting<boolean> {
  const known = adapter.unitAt(path, target, lun)
  const unit = known ?? candidate(adapter, path, target, lun)
  const cdb = [ScsiOp.INQUIRY, 0, 0, 0, INQUIRY_BYTES, 0]
  const told = yield* portCommand(adapter, unit, { cdb, dataBytes: INQUIRY_BYTES })
  const serial = told === null || !isUnit(told) ? '' : yield* serialOf(adapter, unit)
  if (told === null || serial === null || !isUnit(told)) {
    if (known === undefined) forget(adapter, unit)
    else if (told !== null && serial !== null) unit.present = false
    return told !== null && serial !== null
  }
  unit.identity = identityOf(told.data, serial)
  unit.present = true
  return true
}

function isUnit({ srbStatus, data }: PortCommandResult): boolean {
  const answered = srbStatus === SrbStatus.SUCCESS && data.length === INQUIRY_BYTES
  return answered && (data[0] ?? 0xff) >>> 5 === CONNECTED
}

/** Null when memory is short. */
function* serialOf(adapter: Adapter, unit: LogicalUnit): Waiting<string | null> {
  const cdb = [ScsiOp.INQUIRY, 1, Vpd.SERIAL, 0, SERIAL_BYTES, 0]
  const told = yield* portCommand(adapter, unit, { cdb, dataBytes: SERIAL_BYTES })
  if (told === null) return null
  const { srbStatus, data } = told
  const answered = srbStatus === SrbStatus.SUCCESS || srbStatus === SrbStatus.DATA_OVERRUN
  if (!answered || data[1] !== Vpd.SERIAL) return ''
  return printable(data.subarray(4, 4 + (data[3] ?? 0)))
}

function identityOf(data: Uint8Array, serial: string): UnitIdentity {
  return {
    deviceType: (data[0] ?? 0) & 0x1f,
    removable: ((data[1] ?? 0) & REMOVABLE) !== 0,
    vendor: printable(data.subarray(8, 16)),
    product: printable(data.subarray(16, 32)),
    revision: printable(data.subarray(32, 36)),
    serial,
  }
}

/** What a device says goes into names: printable ASCII alone, without the padding. */
function printable(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes)
    .replace(/[^\x20-\x7e]/g, '')
    .trimEnd()
}

function candidate(adapter: Adapter, path: number, target: number, lun: number): LogicalUnit {
  const unit = new LogicalUnit(path, target, lun)
  adapter.units.push(unit)
  return unit
}

function forget(adapter: Adapter, unit: LogicalUnit): void {
  adapter.units.splice(adapter.units.indexOf(unit), 1)
}
