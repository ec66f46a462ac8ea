/**
 * The good state that every witness case starts from, as data: where things lie, the value of every VMCS
 * field, the EPT and the guest's memory. A case is this state and a few changes.
 *
 * Host-physical layout (bytes). Hypervisor structures are rebuilt and guest memory is zeroed before each case.
 *
 * EPT (4 levels, write-back, every entry R+W+X and user-execute clear, accessed and dirty not enabled):
 * - guest-physical 0 .. 2 MiB: 512 leaves of 4 KiB, to host-physical `guestRam`
 * - guest-physical 2 MiB .. 4 MiB: one leaf of 2 MiB, to host-physical `largeLeaf`
 * - guest-physical 1 GiB .. 2 GiB: one leaf of 1 GiB, to host-physical 0
 * - everything else: entries of zero
 *
 * Guest: 64-bit mode, linear address = guest-physical address for the first 4 GiB (one PML4 entry, four
 * 1-GiB pages, accessed and dirty already set, so a page walk only reads).
 */
import { FIELD, type FieldName } from './fields.ts'

export const MEMORY = {
  hostPml4: 0x9000,
  hostPdpt: 0xa000,
  hostGdt: 0xb000,
  hostIdt: 0xc000,
  hostTss: 0xd000,
  hostStackTop: 0x8f00,
  image: 0x10000,
  /** Sectors of 512 bytes that the boot sector loads to `image`. */
  imageSectors: 256,
  vmxonRegion: 0x101000,
  hypervisorRam: 0x110000,
  hypervisorRamBytes: 0x20000,
  vmcsRegion: 0x111000,
  ioBitmapA: 0x112000,
  ioBitmapB: 0x113000,
  msrBitmap: 0x114000,
  virtualApic: 0x115000,
  apicAccess: 0x116000,
  entryMsrLoad: 0x117000,
  linkVmcs: 0x118000,
  eptPml4: 0x120000,
  eptPdpt: 0x121000,
  eptDirectory: 0x122000,
  eptTable: 0x123000,
  guestRam: 0x200000,
  guestRamBytes: 0x40000,
  largeLeaf: 0x400000,
} as const

/** Guest-physical addresses; the guest's RAM that cases use is the first 256 KiB. */
export const GUEST = {
  pml4: 0x1000,
  pdpt: 0x2000,
  gdt: 0x3000,
  idt: 0x4000,
  tss: 0x5000,
  /** The program starts here. */
  code: 0x10000,
  /** Handler of vector v lies at handlers + 16 v and is VMCALL (3 bytes), IRETQ (2 bytes), HLT (1 byte). */
  handlers: 0x18000,
  /** RSP at the start; the stack lies in the page below. */
  stackTop: 0x20000,
  /** A page of zeros of its own. */
  data: 0x30000,
} as const

/** IA32_VMX_* capability MSRs by number, as the witness reports them: `corei7_haswell_4770` of Bochs 2.7. */
export const CAPABILITIES: Readonly<Record<number, bigint>> = {
  /** Basic: revision 0x2b, 1-KiB regions, INS/OUTS information (54), true controls (55). */
  1152: 0xd810000000002bn,
  1153: 0x7f00000016n,
  1154: 0xf7f9fffe0401e172n,
  1155: 0x7fffff00036dffn,
  1156: 0xffff000011ffn,
  /** Misc: timer ticks at TSC / 1, activity HLT, shutdown and wait-for-SIPI, 4 CR3 targets. */
  1157: 0x200401e0n,
  1158: 0x80000021n,
  1159: 0xffffffffn,
  1160: 0x2000n,
  1161: 0x1727ffn,
  1162: 0x34n,
  1163: 0x47fff00000000n,
  /** EPT and VPID: execute-only, 4 levels, UC and WB, 2 MiB, 1 GiB, INVEPT, accessed and dirty, INVVPID. */
  1164: 0xf0106334141n,
  1165: 0x7f00000016n,
  1166: 0xf7f9fffe04006172n,
  1167: 0x7fffff00036dfbn,
  1168: 0xffff000011fbn,
  1169: 0x1n,
}

const FLAT_CODE = 0xa09bn
const FLAT_DATA = 0xc093n
const UNUSABLE = 0x10000n

/** Every field that is written before a case; fields not named here are zero. */
export const DEFAULT_FIELDS: Readonly<Partial<Record<FieldName, bigint>>> = {
  vpid: 1n,
  ioBitmapA: BigInt(MEMORY.ioBitmapA),
  ioBitmapB: BigInt(MEMORY.ioBitmapB),
  msrBitmap: BigInt(MEMORY.msrBitmap),
  exitMsrStoreAddress: 0n,
  exitMsrLoadAddress: 0n,
  entryMsrLoadAddress: BigInt(MEMORY.entryMsrLoad),
  virtualApicAddress: BigInt(MEMORY.virtualApic),
  apicAccessAddress: BigInt(MEMORY.apicAccess),
  eptPointer: BigInt(MEMORY.eptPml4) + 0x1en,
  vmcsLinkPointer: 0xffffffffffffffffn,
  /** Reserved ones only. */
  pinControls: 0x16n,
  /** Reserved ones, HLT exiting (7), secondary controls (31). */
  primaryControls: 0x840061f2n,
  /** EPT (1), VPID (5). */
  secondaryControls: 0x22n,
  /** Reserved ones, 64-bit host (9). */
  exitControls: 0x36ffbn,
  /** Reserved ones, IA-32e guest (9). */
  entryControls: 0x13fbn,
  exceptionBitmap: 0n,
  pageFaultMask: 0n,
  pageFaultMatch: 0n,
  cr3TargetCount: 0n,
  exitMsrStoreCount: 0n,
  exitMsrLoadCount: 0n,
  entryMsrLoadCount: 0n,
  entryInterruptionInfo: 0n,
  entryExceptionErrorCode: 0n,
  entryInstructionLength: 0n,
  tprThreshold: 0n,
  guestEsSelector: 0x10n,
  guestCsSelector: 0x08n,
  guestSsSelector: 0x10n,
  guestDsSelector: 0x10n,
  guestFsSelector: 0x10n,
  guestGsSelector: 0x10n,
  guestLdtrSelector: 0n,
  guestTrSelector: 0x18n,
  guestEsLimit: 0xffffffffn,
  guestCsLimit: 0xffffffffn,
  guestSsLimit: 0xffffffffn,
  guestDsLimit: 0xffffffffn,
  guestFsLimit: 0xffffffffn,
  guestGsLimit: 0xffffffffn,
  guestLdtrLimit: 0n,
  guestTrLimit: 0x67n,
  guestGdtrLimit: 0x27n,
  guestIdtrLimit: 0xfffn,
  guestEsRights: FLAT_DATA,
  guestCsRights: FLAT_CODE,
  guestSsRights: FLAT_DATA,
  guestDsRights: FLAT_DATA,
  guestFsRights: FLAT_DATA,
  guestGsRights: FLAT_DATA,
  guestLdtrRights: UNUSABLE,
  guestTrRights: 0x8bn,
  guestEsBase: 0n,
  guestCsBase: 0n,
  guestSsBase: 0n,
  guestDsBase: 0n,
  guestFsBase: 0n,
  guestGsBase: 0n,
  guestLdtrBase: 0n,
  guestTrBase: BigInt(GUEST.tss),
  guestGdtrBase: BigInt(GUEST.gdt),
  guestIdtrBase: BigInt(GUEST.idt),
  guestInterruptibility: 0n,
  guestActivity: 0n,
  guestPendingDebug: 0n,
  guestDebugctl: 0n,
  guestSysenterCs: 0n,
  guestSysenterEsp: 0n,
  guestSysenterEip: 0n,
  guestDr7: 0x400n,
  guestCr0: 0x80000031n,
  guestCr3: BigInt(GUEST.pml4),
  guestCr4: 0x2020n,
  guestRsp: BigInt(GUEST.stackTop),
  guestRip: BigInt(GUEST.code),
  guestRflags: 0x2n,
  cr0Mask: 0n,
  cr4Mask: 0n,
  cr0Shadow: 0n,
  cr4Shadow: 0n,
  hostEsSelector: 0x10n,
  hostCsSelector: 0x08n,
  hostSsSelector: 0x10n,
  hostDsSelector: 0x10n,
  hostFsSelector: 0x10n,
  hostGsSelector: 0x10n,
  hostTrSelector: 0x18n,
  hostSysenterCs: 0n,
  hostCr0: 0x80000031n,
  hostCr3: BigInt(MEMORY.hostPml4),
  hostCr4: 0x2020n,
  hostFsBase: 0n,
  hostGsBase: 0n,
  hostTrBase: BigInt(MEMORY.hostTss),
  hostGdtrBase: BigInt(MEMORY.hostGdt),
  hostIdtrBase: BigInt(MEMORY.hostIdt),
  hostSysenterEsp: 0n,
  hostSysenterEip: 0n,
  hostRsp: BigInt(MEMORY.hostStackTop),
  hostRip: BigInt(MEMORY.image),
}

/** The default fields with their encodings, in the order in which they are written. */
export function defaultFields(): { name: FieldName; encoding: number; value: bigint }[] {
  const names = Object.keys(DEFAULT_FIELDS) as FieldName[]
  return names.map((name) => ({ name, encoding: FIELD[name], value: DEFAULT_FIELDS[name] ?? 0n }))
}

/** One 64-bit value in guest memory. */
export interface GuestQuad {
  readonly address: number
  readonly value: bigint
}

/** The guest's paging structures, GDT (flat code, flat data, busy TSS) and one interrupt gate per vector. */
export function defaultGuestMemory(): GuestQuad[] {
  const quads: GuestQuad[] = [{ address: GUEST.pml4, value: BigInt(GUEST.pdpt) + 0x23n }]
  for (let index = 0; index < 4; index += 1) {
    quads.push({ address: GUEST.pdpt + 8 * index, value: BigInt(index) * 0x40000000n + 0xe3n })
  }
  quads.push({ address: GUEST.gdt + 8, value: 0x00209b0000000000n })
  quads.push({ address: GUEST.gdt + 16, value: 0x00cf93000000ffffn })
  quads.push({ address: GUEST.gdt + 24, value: 0x00008b0000000067n + BigInt(GUEST.tss) * 0x10000n })
  for (let vector = 0; vector < 256; vector += 1) {
    const handler = BigInt(GUEST.handlers + 16 * vector)
    const gate = (handler % 0x10000n) + 0x00008e0000080000n + (handler / 0x10000n) * 0x1000000000000n
    quads.push({ address: GUEST.idt + 16 * vector, value: gate })
  }
  return quads
}
