/**
 * Events: what entry injects, what pends, what opens a window, what interrupts delivery. SDM 27.6, 26.2, 28.2.4.
 *
 * Three things cannot be asked of Bochs 2.7: an injected event of type 7 ends it, a halted guest never wakes for
 * its interrupt window, and an NMI left pending by the host stays blocked in the guest. Those are in the tests
 * of the model alone.
 */
import type { Change, WitnessCase } from './cases.ts'
import { GUEST } from './defaults.ts'
import { bit, once, set, several, write } from './steps.ts'

const INJECTION = '27.6.1'
const WINDOWS = '26.2'
const PENDING = '26.2'
const CHECKS = '27.2.1.3'
const VECTORING = '28.2.4'

const inject = (info: bigint): Change => write('entryInterruptionInfo', bit(31) + info)
const IF = set('guestRflags', bit(9))
const blocking = (bits: bigint): Change => write('guestInterruptibility', bits)
const EXTERNAL_EXITING = set('pinControls', bit(0))
const VIRTUAL_NMIS = set('pinControls', bit(3, 5))
const ACKNOWLEDGE = set('exitControls', bit(15))
const INTERRUPT_WINDOW = set('primaryControls', bit(2))
const NMI_WINDOW = set('primaryControls', bit(22))
const raise = (vector: number): Change => ({ kind: 'raise', vector })
const leaf = (address: number, setBits: bigint, clearBits: bigint): Change => ({
  kind: 'ept',
  level: 1,
  address,
  set: setBits,
  clear: clearBits,
})

const injections: readonly WitnessCase[] = [
  once(INJECTION, 'an external interrupt is injected', 'nops', [IF, inject(0x41n)]),
  once(INJECTION, 'an external interrupt is injected while IF is clear', 'nops', [inject(0x41n)]),
  once(INJECTION, 'an external interrupt is injected under STI blocking', 'nops', [
    IF,
    blocking(1n),
    inject(0x41n),
  ]),
  once(INJECTION, 'an external interrupt is injected under MOV SS blocking', 'nops', [
    IF,
    blocking(2n),
    inject(0x41n),
  ]),
  once(INJECTION, 'an NMI is injected', 'nops', [inject(0x202n)]),
  once(INJECTION, 'an NMI is injected under MOV SS blocking', 'nops', [blocking(2n), inject(0x202n)]),
  once(INJECTION, 'an NMI is injected while a virtual NMI blocks', 'nops', [
    VIRTUAL_NMIS,
    blocking(8n),
    inject(0x202n),
  ]),
  once(INJECTION, 'a general-protection exception is injected with its error code', 'nops', [
    inject(0xb0dn),
    write('entryExceptionErrorCode', 0x18n),
  ]),
  once(INJECTION, 'an invalid-opcode exception is injected', 'nops', [inject(0x306n)]),
  once(INJECTION, 'a software interrupt is injected with its length', 'nops', [
    inject(0x480n),
    write('entryInstructionLength', 2n),
  ]),
  once(INJECTION, 'a breakpoint is injected with its length', 'nops', [
    inject(0x603n),
    write('entryInstructionLength', 1n),
  ]),
  once(INJECTION, 'an interrupt is injected into a halted guest', 'nops', [
    IF,
    write('guestActivity', 1n),
    inject(0x41n),
  ]),
  several(
    INJECTION,
    'the handler of an injected interrupt returns',
    'nops',
    { changes: [IF, inject(0x41n)] },
    { advance: true },
  ),
  several(
    INJECTION,
    'the handler of an injected NMI returns, and NMIs block no more',
    'nops',
    { changes: [inject(0x202n)] },
    { advance: true },
  ),
  several(
    INJECTION,
    'the handler of an injected virtual NMI returns',
    'nops',
    { changes: [VIRTUAL_NMIS, inject(0x202n)] },
    { advance: true },
  ),
]

const refused: readonly WitnessCase[] = [
  once(CHECKS, 'an event of type 1', 'nops', [inject(0x141n)]),
  once(CHECKS, 'an NMI of vector 3', 'nops', [inject(0x203n)]),
  once(CHECKS, 'a hardware exception of vector 32', 'nops', [inject(0x320n)]),
  once(CHECKS, 'a general-protection exception without its error code', 'nops', [inject(0x30dn)]),
  once(CHECKS, 'an invalid-opcode exception with an error code', 'nops', [inject(0xb06n)]),
  once(CHECKS, 'an event with reserved bit 12', 'nops', [inject(0x306n + bit(12))]),
  once(CHECKS, 'an error code above 16 bits', 'nops', [
    inject(0xb0dn),
    write('entryExceptionErrorCode', bit(16)),
  ]),
  once(CHECKS, 'a software interrupt without a length', 'nops', [inject(0x480n)]),
  once(CHECKS, 'a software interrupt of length 16', 'nops', [
    inject(0x480n),
    write('entryInstructionLength', 16n),
  ]),
  once('27.3.1.5', 'a divide error is injected into a halted guest', 'nops', [
    write('guestActivity', 1n),
    inject(0x300n),
  ]),
]

const pending: readonly WitnessCase[] = [
  once(PENDING, 'a pending interrupt with exiting and acknowledgement', 'nops', [
    EXTERNAL_EXITING,
    ACKNOWLEDGE,
    raise(0x51),
  ]),
  once(PENDING, 'a pending interrupt with exiting, not acknowledged', 'nops', [
    EXTERNAL_EXITING,
    raise(0x51),
  ]),
  once(PENDING, 'a pending interrupt with exiting and acknowledgement while IF is set', 'nops', [
    EXTERNAL_EXITING,
    ACKNOWLEDGE,
    IF,
    raise(0x51),
  ]),
  once(PENDING, 'a pending interrupt with exiting while IF is set, not acknowledged', 'nops', [
    EXTERNAL_EXITING,
    IF,
    raise(0x51),
  ]),
  once(PENDING, 'a pending interrupt without exiting while IF is set', 'nops', [IF, raise(0x51)]),
  once(PENDING, 'a pending interrupt without exiting while IF is clear', 'nops', [raise(0x51)]),
  once(PENDING, 'a pending interrupt waits for the instruction after STI', 'sti-nops', [raise(0x51)]),
  once(PENDING, 'STI blocking at entry holds a pending interrupt back', 'nops', [
    IF,
    blocking(1n),
    raise(0x51),
  ]),
  once(PENDING, 'a pending interrupt is taken between STI and HLT of a later look', 'nop-sti-hlt', [
    raise(0x51),
  ]),
  once(PENDING, 'MOV SS holds a pending interrupt back', 'mov-ss', [IF, raise(0x51)], { rax: 0x10n }),
  once(PENDING, 'CLI after STI lets no interrupt in', 'sti-cli', [raise(0x51)]),
]

const windows: readonly WitnessCase[] = [
  once(WINDOWS, 'an interrupt window that is open', 'nops', [INTERRUPT_WINDOW, IF]),
  once(WINDOWS, 'an interrupt window under STI blocking', 'nops', [INTERRUPT_WINDOW, IF, blocking(1n)]),
  once(WINDOWS, 'an interrupt window under MOV SS blocking', 'nops', [INTERRUPT_WINDOW, IF, blocking(2n)]),
  once(WINDOWS, 'an interrupt window that stays closed', 'nops', [INTERRUPT_WINDOW]),
  once(WINDOWS, 'an interrupt window opens after STI', 'sti-nops', [INTERRUPT_WINDOW]),
  once(WINDOWS, 'an interrupt window goes before a pending interrupt', 'nops', [
    INTERRUPT_WINDOW,
    IF,
    EXTERNAL_EXITING,
    raise(0x51),
  ]),
  once(WINDOWS, 'an NMI window that is open', 'nops', [VIRTUAL_NMIS, NMI_WINDOW]),
  once(WINDOWS, 'an NMI window under MOV SS blocking', 'nops', [VIRTUAL_NMIS, NMI_WINDOW, blocking(2n)]),
  /** After all other cases with virtual NMIs: Bochs 2.7 carries the block over to the next entry. */
  once(WINDOWS, 'an NMI window while virtual NMIs block', 'nops', [VIRTUAL_NMIS, NMI_WINDOW, blocking(8n)]),
  several(
    WINDOWS,
    'an injected interrupt closes its own window',
    'nops',
    { changes: [INTERRUPT_WINDOW, IF, inject(0x41n)] },
    { advance: true },
  ),
]

const exceptions: readonly WitnessCase[] = [
  once('26.2', 'an invalid opcode with its bit in the exception bitmap', 'ud2', [
    write('exceptionBitmap', bit(6)),
  ]),
  once('26.2', 'an invalid opcode without it', 'ud2', []),
  once('26.2', 'a breakpoint with its bit in the exception bitmap', 'int3', [
    write('exceptionBitmap', bit(3)),
  ]),
  once('26.2', 'a breakpoint without it', 'int3', []),
  once('26.2', 'a software interrupt', 'int-80', []),
]

const vectoring: readonly WitnessCase[] = [
  once(VECTORING, 'an injected interrupt finds no stack page', 'nops', [
    IF,
    inject(0x41n),
    leaf(GUEST.stackTop - 8, 0n, 7n),
  ]),
  once(VECTORING, 'an injected interrupt finds no interrupt table', 'nops', [
    IF,
    inject(0x41n),
    leaf(GUEST.idt, 0n, 7n),
  ]),
  once(VECTORING, 'an injected exception with an error code finds no stack page', 'nops', [
    inject(0xb0dn),
    write('entryExceptionErrorCode', 0x18n),
    leaf(GUEST.stackTop - 8, 0n, 7n),
  ]),
  once(VECTORING, 'an injected software interrupt finds no stack page', 'nops', [
    inject(0x480n),
    write('entryInstructionLength', 2n),
    leaf(GUEST.stackTop - 8, 0n, 7n),
  ]),
  once(VECTORING, 'a software interrupt finds no stack page', 'int-80', [leaf(GUEST.stackTop - 8, 0n, 7n)]),
  once(VECTORING, 'an injected NMI finds no stack page', 'nops', [
    inject(0x202n),
    leaf(GUEST.stackTop - 8, 0n, 7n),
  ]),
  once(VECTORING, 'an injected interrupt finds a read-only stack page', 'nops', [
    IF,
    inject(0x41n),
    leaf(GUEST.stackTop - 8, 0n, 2n),
  ]),
  several(
    VECTORING,
    'an interrupted delivery is injected again',
    'nops',
    { changes: [IF, inject(0x41n), leaf(GUEST.stackTop - 8, 0n, 7n)] },
    { changes: [inject(0x41n), leaf(GUEST.stackTop - 8, 7n, 0n)] },
  ),
  once(VECTORING, 'a missing gate with its fault in the exception bitmap', 'int-80', [
    { kind: 'guestMemory', address: GUEST.idt + 16 * 0x80, value: 0n },
    write('exceptionBitmap', bit(13)),
  ]),
  once(VECTORING, 'a gate that is not present, with its fault in the exception bitmap', 'nops', [
    { kind: 'guestMemory', address: GUEST.idt + 16 * 0x41, value: 0x00010e0000080000n },
    IF,
    inject(0x41n),
    write('exceptionBitmap', bit(11)),
  ]),
  once(VECTORING, 'a missing gate leads to the handler of its fault', 'int-80', [
    { kind: 'guestMemory', address: GUEST.idt + 16 * 0x80, value: 0n },
  ]),
  once(VECTORING, 'no gates at all', 'int-80', [write('guestIdtrLimit', 0n)]),
  once(VECTORING, 'no gates at all, and the double fault in the exception bitmap', 'int-80', [
    write('guestIdtrLimit', 0n),
    write('exceptionBitmap', bit(8)),
  ]),
]

export const EVENT_CASES: readonly WitnessCase[] = [
  ...injections,
  ...refused,
  ...pending,
  ...windows,
  ...exceptions,
  ...vectoring,
]
