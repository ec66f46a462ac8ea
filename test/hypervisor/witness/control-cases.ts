/** VM-execution, exit and entry control fields that VM entry refuses: VMfail with error 7. */
import type { WitnessCase } from './cases.ts'
import { MEMORY } from './defaults.ts'
import { bit, check, clear, set, write } from './steps.ts'

const EXECUTION = '27.2.1.1'
const EXIT = '27.2.1.2'
const ENTRY = '27.2.1.3'

const TPR_SHADOW = set('primaryControls', bit(21))
const NMI_EXITING = set('pinControls', bit(3))
const VIRTUAL_NMIS = set('pinControls', bit(5))
const BEYOND_PHYSICAL = bit(50)
/** Makes entry fail with reason 33 once the controls have passed, where the guest itself cannot run. */
const BAD_RFLAGS = clear('guestRflags', bit(1))

const reserved: readonly WitnessCase[] = [
  check(EXECUTION, 'a reserved pin-based control is clear', clear('pinControls', bit(1))),
  check(EXECUTION, 'a pin-based control that is not supported is set', set('pinControls', bit(31))),
  check(EXECUTION, 'a reserved primary control is clear', clear('primaryControls', bit(4))),
  check(EXECUTION, 'a primary control that is not supported is set', set('primaryControls', bit(0))),
  check(EXECUTION, 'a secondary control that is not supported is set', set('secondaryControls', bit(31))),
  check(
    EXECUTION,
    'a bad secondary control counts for nothing without activation',
    set('secondaryControls', bit(31)),
    clear('primaryControls', bit(31)),
    BAD_RFLAGS,
  ),
  check(EXIT, 'a reserved exit control is clear', clear('exitControls', bit(0))),
  check(EXIT, 'an exit control that is not supported is set', set('exitControls', bit(31))),
  check(ENTRY, 'a reserved entry control is clear', clear('entryControls', bit(12))),
  check(ENTRY, 'an entry control that is not supported is set', set('entryControls', bit(31))),
]

const bitmaps: readonly WitnessCase[] = [
  check(EXECUTION, 'four CR3 targets', write('cr3TargetCount', 4n)),
  check(EXECUTION, 'five CR3 targets', write('cr3TargetCount', 5n)),
  check(
    EXECUTION,
    'I/O bitmap A is not page-aligned',
    set('primaryControls', bit(25)),
    set('ioBitmapA', bit(3)),
  ),
  check(
    EXECUTION,
    'I/O bitmap B is not page-aligned',
    set('primaryControls', bit(25)),
    set('ioBitmapB', bit(11)),
  ),
  check(
    EXECUTION,
    'I/O bitmap B lies beyond the physical-address width',
    set('primaryControls', bit(25)),
    set('ioBitmapB', BEYOND_PHYSICAL),
  ),
  check(EXECUTION, 'an unaligned I/O bitmap that is not used', set('ioBitmapA', bit(0))),
  check(
    EXECUTION,
    'the MSR bitmap is not page-aligned',
    set('primaryControls', bit(28)),
    set('msrBitmap', bit(4)),
  ),
  check(
    EXECUTION,
    'the MSR bitmap lies beyond the physical-address width',
    set('primaryControls', bit(28)),
    set('msrBitmap', BEYOND_PHYSICAL),
  ),
]

const nmis: readonly WitnessCase[] = [
  check(EXECUTION, 'virtual NMIs without NMI exiting', VIRTUAL_NMIS),
  check(EXECUTION, 'NMI-window exiting without virtual NMIs', NMI_EXITING, set('primaryControls', bit(22))),
]

const apic: readonly WitnessCase[] = [
  check(EXECUTION, 'a TPR shadow whose page is not aligned', TPR_SHADOW, set('virtualApicAddress', bit(6))),
  check(
    EXECUTION,
    'a TPR shadow whose page lies beyond the physical-address width',
    TPR_SHADOW,
    set('virtualApicAddress', BEYOND_PHYSICAL),
  ),
  check(EXECUTION, 'a TPR threshold above 15', TPR_SHADOW, write('tprThreshold', 0x10n)),
  check(EXECUTION, 'a TPR threshold above the task priority', TPR_SHADOW, write('tprThreshold', 5n)),
  check(EXECUTION, 'a TPR threshold equal to the task priority', TPR_SHADOW, write('tprThreshold', 5n), {
    kind: 'virtualApic',
    offset: 0x80,
    value: 0x50n,
  }),
  check(EXECUTION, 'x2APIC mode without a TPR shadow', set('secondaryControls', bit(4))),
  check(EXECUTION, 'APIC-register virtualization without a TPR shadow', set('secondaryControls', bit(8))),
  check(
    EXECUTION,
    'virtual-interrupt delivery without a TPR shadow',
    set('secondaryControls', bit(9)),
    set('pinControls', bit(0)),
  ),
  check(
    EXECUTION,
    'virtual-interrupt delivery without external-interrupt exiting',
    TPR_SHADOW,
    set('secondaryControls', bit(9)),
  ),
  check(
    EXECUTION,
    'virtual-interrupt delivery with external-interrupt exiting',
    TPR_SHADOW,
    set('secondaryControls', bit(9)),
    set('pinControls', bit(0)),
  ),
  check(
    EXECUTION,
    'x2APIC mode together with APIC accesses',
    TPR_SHADOW,
    set('secondaryControls', bit(0, 4)),
  ),
  check(
    EXECUTION,
    'an APIC-access page that is not aligned',
    set('secondaryControls', bit(0)),
    set('apicAccessAddress', bit(2)),
  ),
  check(
    EXECUTION,
    'an APIC-access page beyond the physical-address width',
    set('secondaryControls', bit(0)),
    set('apicAccessAddress', BEYOND_PHYSICAL),
  ),
]

const translation: readonly WitnessCase[] = [
  check(EXECUTION, 'VPID zero', write('vpid', 0n)),
  check(EXECUTION, 'VPID zero while VPIDs are off', write('vpid', 0n), clear('secondaryControls', bit(5))),
  check(EXECUTION, 'an EPT pointer of memory type 1', write('eptPointer', BigInt(MEMORY.eptPml4) + 0x19n)),
  check(EXECUTION, 'an EPT pointer of memory type 0', write('eptPointer', BigInt(MEMORY.eptPml4) + 0x18n)),
  check(EXECUTION, 'an EPT walk of three levels', write('eptPointer', BigInt(MEMORY.eptPml4) + 0x16n)),
  check(EXECUTION, 'EPT pointer bit 7', set('eptPointer', bit(7))),
  check(EXECUTION, 'EPT pointer bit 11', set('eptPointer', bit(11))),
  check(EXECUTION, 'an EPT pointer beyond the physical-address width', set('eptPointer', BEYOND_PHYSICAL)),
  check(EXECUTION, 'an EPT pointer with accessed and dirty flags', set('eptPointer', bit(6))),
  check(
    EXECUTION,
    'an unrestricted guest without EPT',
    set('secondaryControls', bit(7)),
    clear('secondaryControls', bit(1)),
  ),
]

const exitAndEntry: readonly WitnessCase[] = [
  check(EXIT, 'saving a preemption timer that is not active', set('exitControls', bit(22))),
  check(
    EXIT,
    'an unaligned exit MSR-store area',
    write('exitMsrStoreCount', 1n),
    write('exitMsrStoreAddress', 8n),
  ),
  check(
    EXIT,
    'an exit MSR-load area beyond the physical-address width',
    write('exitMsrLoadCount', 1n),
    write('exitMsrLoadAddress', BEYOND_PHYSICAL),
  ),
  check(EXIT, 'an unaligned exit MSR-load area that is empty', write('exitMsrLoadAddress', 8n)),
  check(
    ENTRY,
    'an unaligned entry MSR-load area',
    write('entryMsrLoadCount', 1n),
    set('entryMsrLoadAddress', bit(3)),
  ),
  check(
    ENTRY,
    'an entry MSR-load area that ends beyond the physical-address width',
    write('entryMsrLoadCount', 2n),
    write('entryMsrLoadAddress', bit(40) - 16n),
  ),
  check(ENTRY, 'entry to SMM from outside SMM', set('entryControls', bit(10))),
  check(ENTRY, 'deactivation of dual-monitor treatment from outside SMM', set('entryControls', bit(11))),
]

export const CONTROL_CASES: readonly WitnessCase[] = [
  check(EXECUTION, 'the default state enters and halts'),
  ...reserved,
  ...bitmaps,
  ...nmis,
  ...apic,
  ...translation,
  ...exitAndEntry,
]
