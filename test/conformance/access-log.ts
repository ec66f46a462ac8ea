import type { LiteralBlkDevice, LoggedAccess } from './literal-blk-device.ts'
import { R } from './literal-registers.ts'

/** Accesses since the last reset began: those of the initialization that counts. */
export function lastStart(device: LiteralBlkDevice): readonly LoggedAccess[] {
  const from = device.log.findLastIndex(
    ({ kind, offset, value }) => isWrite(kind, offset, R.status) && value === 0,
  )
  return device.log.slice(from + 1)
}

export function isWrite(kind: string, offset: number, register: number): boolean {
  return kind === 'write' && offset === register
}

/** Index of the first such access, or -1. */
export function first(
  log: readonly LoggedAccess[],
  kind: 'read' | 'write',
  offset: number,
  bits = 0,
): number {
  return log.findIndex((one) => one.kind === kind && one.offset === offset && (one.value & bits) === bits)
}
