/** Bug check codes the kernel raises (bugcodes.h), without the prefix. */
export const BugCode = {
  IRQL_NOT_LESS_OR_EQUAL: 0x0a,
  SPIN_LOCK_ALREADY_OWNED: 0x0f,
  SPIN_LOCK_NOT_OWNED: 0x10,
  BAD_POOL_HEADER: 0x19,
  KMODE_EXCEPTION_NOT_HANDLED: 0x1e,
  INCONSISTENT_IRP: 0x2a,
  NO_MORE_IRP_STACK_LOCATIONS: 0x35,
  DEVICE_REFERENCE_COUNT_NOT_ZERO: 0x36,
  MULTIPLE_IRP_COMPLETE_REQUESTS: 0x44,
  CANCEL_STATE_IN_COMPLETED_IRP: 0x48,
  PAGE_FAULT_IN_NONPAGED_AREA: 0x50,
  PFN_LIST_CORRUPT: 0x4e,
  PROCESS_HAS_LOCKED_PAGES: 0x76,
  MUTEX_LEVEL_NUMBER_VIOLATION: 0x0d,
  THREAD_NOT_MUTEX_OWNER: 0x11,
  REFERENCE_BY_POINTER: 0x18,
  DRIVER_POWER_STATE_FAILURE: 0x9f,
  ATTEMPTED_SWITCH_FROM_DPC: 0xb8,
  BAD_POOL_CALLER: 0xc2,
  DRIVER_VERIFIER_DETECTED_VIOLATION: 0xc4,
  DRIVER_CORRUPTED_EXPOOL: 0xc5,
  TIMER_OR_DPC_INVALID: 0xc7,
  IRQL_UNEXPECTED_VALUE: 0xc8,
  DRIVER_VERIFIER_IOMANAGER_VIOLATION: 0xc9,
  PNP_DETECTED_FATAL_ERROR: 0xca,
  DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS: 0xcb,
  DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS: 0xce,
  DRIVER_IRQL_NOT_LESS_OR_EQUAL: 0xd1,
  SCSI_VERIFIER_DETECTED_VIOLATION: 0xf1,
} as const

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(BugCode).map(([name, code]) => [code, name]),
)

const hex = (value: number): string => `0x${value.toString(16).toUpperCase()}`

/** What a debugger prints: the code and its four parameters. */
export type BugCheckParameters = readonly [number, number, number, number]

/**
 * The guest has stopped: KeBugCheckEx. Thrown so that nothing below continues, and caught where the machine
 * enters the kernel (`Hal.enter`): it never leaves the guest.
 */
export class BugCheck extends Error {
  readonly code: number
  readonly parameters: BugCheckParameters

  constructor(code: number, parameters: BugCheckParameters, options?: ErrorOptions) {
    super(
      `bug check ${hex(code)} ${NAMES.get(code) ?? ''} (${parameters.map(hex).join(', ')})`.replace(
        '  ',
        ' ',
      ),
      options,
    )
    this.name = 'BugCheck'
    this.code = code
    this.parameters = parameters
  }
}

/** Stops the guest. */
export function keBugCheckEx(code: number, first = 0, second = 0, third = 0, fourth = 0): never {
  throw new BugCheck(code, [first, second, third, fourth])
}

/**
 * What an exception that nobody handled becomes: an access outside memory is a page fault, anything else an
 * unhandled kernel exception with the original as its cause.
 */
export function bugCheckOf(thrown: unknown): BugCheck {
  if (thrown instanceof BugCheck) return thrown
  const code =
    thrown instanceof RangeError ? BugCode.PAGE_FAULT_IN_NONPAGED_AREA : BugCode.KMODE_EXCEPTION_NOT_HANDLED
  return new BugCheck(code, [0, 0, 0, 0], { cause: thrown })
}
