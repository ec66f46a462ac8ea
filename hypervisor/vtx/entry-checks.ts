import { ENTRY_CONTROLS, EXECUTION_CONTROLS, EXIT_CONTROLS, TPR_THRESHOLD } from './check-controls.ts'
import { EVENT_INJECTION } from './check-events.ts'
import type { CheckGroup, EntryCheck, EntryState } from './check-group.ts'
import {
  GUEST_REGISTERS,
  LINK_POINTER,
  NON_REGISTER_STATE,
  PAGE_DIRECTORY_POINTERS,
  RIP_AND_RFLAGS,
} from './check-guest.ts'
import { HOST_STATE } from './check-host.ts'
import { DESCRIPTOR_TABLES, GUEST_SEGMENTS } from './check-segments.ts'
import { FIELD_COUNT, SLOT } from './field.ts'

/**
 * Everything VM entry checks, in the order in which failures are reported: controls and host state before
 * guest state (SDM vol. 3, 27.2 and 27.3).
 */
export const ENTRY_CHECKS: readonly CheckGroup[] = [
  EXECUTION_CONTROLS,
  TPR_THRESHOLD,
  EXIT_CONTROLS,
  ENTRY_CONTROLS,
  EVENT_INJECTION,
  HOST_STATE,
  GUEST_REGISTERS,
  GUEST_SEGMENTS,
  DESCRIPTOR_TABLES,
  RIP_AND_RFLAGS,
  NON_REGISTER_STATE,
  LINK_POINTER,
  PAGE_DIRECTORY_POINTERS,
]

/** By slot of a VMCS field: the groups that read it, as bits. */
export const CHECK_READERS = new Uint32Array(FIELD_COUNT)
/** Groups that no VMWRITE announces. */
let unannounced = 0
ENTRY_CHECKS.forEach((group, index) => {
  if (group.readsMemory) unannounced |= 1 << index
  for (const encoding of group.reads) {
    const slot = SLOT[encoding] as number
    CHECK_READERS[slot] = (CHECK_READERS[slot] as number) | (1 << index)
  }
})
const UNANNOUNCED = unannounced

export interface FailedCheck {
  readonly group: CheckGroup
  readonly check: EntryCheck
}

/**
 * Makes the checks whose inputs were written since they last passed, and those that read memory. The first
 * that fails, or null; groups that passed are not made again until a field they read is written.
 */
export function failedCheck(state: EntryState): FailedCheck | null {
  const { vmcs } = state
  const due = vmcs.stale | UNANNOUNCED
  for (let index = 0; index < ENTRY_CHECKS.length; index++) {
    if (((due >>> index) & 1) === 0) continue
    const group = ENTRY_CHECKS[index] as CheckGroup
    for (const check of group.checks) {
      if (!check.holds(state)) return { group, check }
    }
    vmcs.stale &= ~(1 << index)
  }
  return null
}
