import { ScsiStatus } from '../../protocol/scsi.ts'
import type { PortServices } from '../port/miniport.ts'
import type { Srb } from '../port/srb.ts'
import { SrbFlag, SrbStatus, SrbStatusBit } from '../port/srb.ts'
import { senseBytes } from './scsi-target.ts'

/** Answers with a CHECK CONDITION, its sense in the buffer that came along where there is one. */
export function answerSense(services: PortServices, srb: Srb, key: number, asc: number): void {
  srb.scsiStatus = ScsiStatus.CHECK_CONDITION
  srb.dataTransferLength = 0
  srb.srbStatus = SrbStatus.ERROR | (putSense(services, srb, key, asc) ? SrbStatusBit.AUTOSENSE_VALID : 0)
  services.requestComplete(srb)
}

function putSense(services: PortServices, srb: Srb, key: number, asc: number): boolean {
  if ((srb.srbFlags & SrbFlag.DISABLE_AUTOSENSE) !== 0) return false
  const room = srb.senseInfoBufferLength
  const at = srb.senseInfoBuffer
  if (room === 0 || at === 0) return false
  const bytes = senseBytes(key, asc).subarray(0, room)
  const window = services.memory.window(at, bytes.length, 1)
  if (window === null) return false
  window.copyIn(0, bytes)
  return true
}

/**
 * Answers with bytes the driver knows. Fewer than asked for are reported as Storport has it: an overrun with
 * the true length.
 */
export function answerData(services: PortServices, srb: Srb, bytes: Uint8Array): void {
  const asked = srb.dataTransferLength
  const given = bytes.subarray(0, asked)
  const at = services.getSystemAddress(srb)
  const window = at === null || given.length === 0 ? null : services.memory.window(at, given.length, 1)
  if (given.length > 0 && window === null) {
    complete(services, srb, SrbStatus.INVALID_REQUEST)
    return
  }
  window?.copyIn(0, given)
  srb.dataTransferLength = given.length
  complete(services, srb, given.length < asked ? SrbStatus.DATA_OVERRUN : SrbStatus.SUCCESS)
}

/** The one completion, without sense. */
export function complete(services: PortServices, srb: Srb, status: number): void {
  srb.srbStatus = status
  if (status !== SrbStatus.SUCCESS && status !== SrbStatus.DATA_OVERRUN && status !== SrbStatus.BUSY) {
    srb.dataTransferLength = 0
  }
  if (status === SrbStatus.SUCCESS || status === SrbStatus.DATA_OVERRUN) srb.scsiStatus = ScsiStatus.GOOD
  services.requestComplete(srb)
}
