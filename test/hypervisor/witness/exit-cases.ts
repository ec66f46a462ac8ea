/** Exits that instructions cause, with their qualifications. SDM 26.1, 28.2.1. */
import type { WitnessCase } from './cases.ts'
import { bit, once, set } from './steps.ts'

const UNCONDITIONAL_IO = set('primaryControls', bit(24))
const IO_BITMAPS = set('primaryControls', bit(25))

export const EXIT_CASES: readonly WitnessCase[] = [
  once('26.1.2', 'CPUID', 'cpuid', []),
  once('26.1.2', 'VMCALL', 'vmcall', []),
  once('26.1.3', 'IN from DX', 'in-al-dx', [UNCONDITIONAL_IO], { rdx: 0x3f8n }),
  once(
    '26.1.3',
    'a port whose bit is set in bitmap B',
    'out-dx-al',
    [IO_BITMAPS, { kind: 'ioBitmap', port: 0xc000, count: 1 }],
    { rdx: 0xc000n },
  ),
  once('26.1.3', 'an access that wraps past the last port', 'in-eax-dx', [IO_BITMAPS], { rdx: 0xfffdn }),
]
