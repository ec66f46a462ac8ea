import { type CheckGroup, Cr0, type EntryState } from './check-group.ts'
import { INFO_ERROR_CODE, INFO_VALID, Interruption, Primary, Secondary } from './control.ts'
import { Field } from './field.ts'

/** Exceptions that push an error code: 8, 10 to 14, 17. */
const ERROR_CODE_VECTORS = (1 << 8) | (0x1f << 10) | (1 << 17)

export function pushesErrorCode(vector: number): boolean {
  return vector < 32 && ((ERROR_CODE_VECTORS >>> vector) & 1) === 1
}

const info = (s: EntryState): number => s.low(Field.entryInterruptionInfo)
const valid = (s: EntryState): boolean => info(s) >= INFO_VALID
const type = (s: EntryState): number => (info(s) >> 8) & 7
const vector = (s: EntryState): number => info(s) & 0xff
const deliversError = (s: EntryState): boolean => (info(s) & INFO_ERROR_CODE) !== 0

/** Whether the guest will be in protected mode: always, unless it is unrestricted. */
const protectedMode = (s: EntryState): boolean =>
  !s.secondary(Secondary.UNRESTRICTED_GUEST) || (s.low(Field.guestCr0) & Cr0.PE) !== 0

const software = (s: EntryState): boolean =>
  type(s) >= Interruption.SOFTWARE_INTERRUPT && type(s) <= Interruption.SOFTWARE_EXCEPTION

const needsError = (s: EntryState): boolean =>
  type(s) === Interruption.HARDWARE_EXCEPTION && protectedMode(s) && pushesErrorCode(vector(s))

/** The event that entry injects. Kept apart from the other entry controls because it is written per injection. */
export const EVENT_INJECTION: CheckGroup = {
  name: 'event injection',
  sdm: '27.2.1.3',
  failure: 'controls',
  readsMemory: false,
  reads: [
    Field.entryInterruptionInfo,
    Field.entryExceptionErrorCode,
    Field.entryInstructionLength,
    Field.secondaryControls,
    Field.primaryControls,
    Field.guestCr0,
  ],
  checks: [
    { name: 'the event type is not 1', holds: (s) => !valid(s) || type(s) !== 1 },
    {
      name: 'an event of type 7 is a supported monitor trap',
      holds: (s) =>
        !valid(s) ||
        type(s) !== Interruption.OTHER ||
        (s.capability.primary.possible & Primary.MONITOR_TRAP) !== 0,
    },
    {
      name: 'an NMI has vector 2',
      holds: (s) => !valid(s) || type(s) !== Interruption.NMI || vector(s) === 2,
    },
    {
      name: 'a hardware exception has a vector up to 31',
      holds: (s) => !valid(s) || type(s) !== Interruption.HARDWARE_EXCEPTION || vector(s) <= 31,
    },
    {
      name: 'an event of type 7 has vector 0',
      holds: (s) => !valid(s) || type(s) !== Interruption.OTHER || vector(s) === 0,
    },
    {
      name: 'an exception with an error code delivers it',
      holds: (s) => !valid(s) || deliversError(s) || !needsError(s),
    },
    {
      name: 'an event without an error code delivers none',
      holds: (s) => !valid(s) || !deliversError(s) || needsError(s),
    },
    { name: 'reserved bits of the event are zero', holds: (s) => !valid(s) || (info(s) & 0x7fff_f000) === 0 },
    {
      name: 'a delivered error code has sixteen bits',
      holds: (s) => !valid(s) || !deliversError(s) || s.low(Field.entryExceptionErrorCode) <= 0xffff,
    },
    {
      name: 'a software event has an instruction length',
      holds: (s) => !valid(s) || !software(s) || lengthHolds(s),
    },
  ],
}

function lengthHolds(s: EntryState): boolean {
  const length = s.low(Field.entryInstructionLength)
  return length <= 15 && (length !== 0 || s.capability.acceptsZeroLength)
}
