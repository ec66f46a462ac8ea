/**
 * The witness cases: small VMX programs as plain data, carried out by an independent processor (bochs.ts) and
 * by our own model, whose outcomes must be equal.
 *
 * A case starts from the good state of defaults.ts with all registers zero and its program (programs.ts) at
 * `GUEST.code`. It is a list of steps. A step makes its changes, then performs one VM entry or one VMX
 * instruction, and yields one outcome (records.ts). The state goes on from step to step: what the processor
 * stored in the VMCS at an exit is what the next step enters with; registers keep the values the guest left
 * in them.
 *
 * A step:
 * - `advance`: first add the VM-exit instruction length to guest RIP, as a handler that emulated the
 *   instruction does;
 * - `registers`: general registers of the guest, set before entry (RSP, RIP and RFLAGS are VMCS fields);
 * - `changes`: in order, see `Change`;
 * - `enter`: `vmlaunch` (default in a case's first step), `vmresume` (default in later ones), or
 *   `vmlaunch-after-mov-ss`: VMLAUNCH as the instruction right after a MOV SS of the host;
 * - or `execute` instead: a VMX instruction in root operation, whose outcome has only `vmfail`.
 *
 * Sections name the editions of SDM vol. 3 in which chapter 27 is "VM Entries".
 *
 * All address translations are dropped (INVEPT and INVVPID of all contexts) before each entry.
 */
import { CONTROL_CASES } from './control-cases.ts'
import { EPT_CASES } from './ept-cases.ts'
import { EVENT_CASES } from './event-cases.ts'
import { EXIT_CASES } from './exit-cases.ts'
import type { FieldName } from './fields.ts'
import { GUEST_CASES } from './guest-cases.ts'
import { HOST_CASES } from './host-cases.ts'
import { LAUNCH_CASES } from './launch-cases.ts'
import type { ProgramName } from './programs.ts'
import { SEGMENT_CASES } from './segment-cases.ts'

export type Register =
  | 'rax'
  | 'rcx'
  | 'rdx'
  | 'rbx'
  | 'rbp'
  | 'rsi'
  | 'rdi'
  | 'r8'
  | 'r9'
  | 'r10'
  | 'r11'
  | 'r12'
  | 'r13'
  | 'r14'
  | 'r15'

export type Change =
  /** VMWRITE of a whole value, or of bits in the field's present value. */
  | { readonly kind: 'field'; readonly field: FieldName; readonly value: bigint }
  | { readonly kind: 'bits'; readonly field: FieldName; readonly set: bigint; readonly clear: bigint }
  /**
   * Bits of the EPT entry that translates guest-physical `address`, in the table of `level`: 4 PML4, 3 PDPT,
   * 2 directory, 1 table. Level 1 exists for 0 .. 2 MiB, level 2 for 0 .. 1 GiB, level 3 for 0 .. 512 GiB.
   */
  | {
      readonly kind: 'ept'
      readonly level: 1 | 2 | 3 | 4
      readonly address: number
      readonly set: bigint
      readonly clear: bigint
    }
  /** The bits of `count` ports from `port` on, in I/O bitmaps A and B. */
  | { readonly kind: 'ioBitmap'; readonly port: number; readonly count: number }
  | { readonly kind: 'msrBitmap'; readonly access: 'read' | 'write'; readonly msr: number }
  /** An entry of the VM-entry MSR-load area; the count is a field of its own. `reserved` is bits 63:32. */
  | {
      readonly kind: 'entryMsr'
      readonly index: number
      readonly msr: number
      readonly reserved: number
      readonly value: bigint
    }
  /** 64 bits of guest memory at a guest-physical address below `MEMORY.guestRamBytes`. */
  | { readonly kind: 'guestMemory'; readonly address: number; readonly value: bigint }
  /** 32 bits of the virtual-APIC page. */
  | { readonly kind: 'virtualApic'; readonly offset: number; readonly value: bigint }
  /** The first 32 bits of the page at `MEMORY.linkVmcs`: a revision identifier, bit 31 the shadow indicator. */
  | { readonly kind: 'linkVmcs'; readonly revision: bigint }
  /** An external interrupt that is pending when the entry begins: the host runs with IF clear. */
  | { readonly kind: 'raise'; readonly vector: number }

export type Enter = 'vmlaunch' | 'vmresume' | 'vmlaunch-after-mov-ss'

/** VMX instructions in root operation. Addresses are host-physical, `encoding` is a VMCS field encoding. */
export type Execute =
  | { readonly instruction: 'vmptrld' | 'vmclear' | 'vmxon'; readonly address: number }
  | { readonly instruction: 'vmread'; readonly encoding: number }
  | { readonly instruction: 'vmwrite'; readonly encoding: number; readonly value: bigint }
  /** `descriptor` is the low 64 bits of the memory operand; the high ones are zero. */
  | { readonly instruction: 'invept' | 'invvpid'; readonly type: number; readonly descriptor: bigint }

export interface Step {
  readonly advance?: boolean
  readonly registers?: Readonly<Partial<Record<Register, bigint>>>
  readonly changes?: readonly Change[]
  readonly enter?: Enter
  readonly execute?: Execute
}

export interface WitnessCase {
  /** Unique; what the case shows, not what is expected of it. */
  readonly name: string
  /** The section of SDM vol. 3 that rules it. */
  readonly sdm: string
  readonly program: ProgramName
  readonly steps: readonly Step[]
}

export const CASES: readonly WitnessCase[] = [
  ...CONTROL_CASES,
  ...HOST_CASES,
  ...GUEST_CASES,
  ...SEGMENT_CASES,
  ...LAUNCH_CASES,
  ...EXIT_CASES,
  ...EPT_CASES,
  ...EVENT_CASES,
]
