import type { Plain } from '../../protocol/platform.ts'
import type { Capability } from './capability.ts'
import { eptMemoryType } from './check-controls.ts'
import { isCanonical } from './check-group.ts'
import { VM_FAIL_INVALID, VM_SUCCEED, VmError } from './control.ts'
import { CHECK_READERS } from './entry-checks.ts'
import { Field, kindOf, NO_SLOT, slotOf, widthOf } from './field.ts'
import type { Physical } from './physical.ts'
import { Vmcs } from './vmcs.ts'

const PAGE = 4096
const TWO_32 = 0x1_0000_0000

/** Drops what the processor remembers of translations. */
export interface TranslationCache {
  invalidate(): void
}

/**
 * The VMX instructions of root operation (SDM vol. 3, 31.3). Each answers 0 for VMsucceed, the VM-instruction
 * error for VMfailValid (also left in the current VMCS), or -1 for VMfailInvalid.
 *
 * The format of a VMCS region is the implementation's own: here its memory holds only the revision, and the
 * fields live beside it.
 */
export class Vmx {
  readonly #capability: Capability
  readonly #physical: Physical
  readonly #cache: TranslationCache
  readonly #regions: Map<number, Vmcs>
  #vmxonPointer: number | null
  #currentPointer: number | null
  current: Vmcs | null

  constructor(capability: Capability, physical: Physical, cache: TranslationCache) {
    this.#capability = capability
    this.#physical = physical
    this.#cache = cache
    this.#regions = new Map()
    this.#vmxonPointer = null
    this.#currentPointer = null
    this.current = null
  }

  /** `pointer` is the 64-bit memory operand, here and below. */
  vmxon(pointer: number): number {
    if (this.#vmxonPointer !== null) return this.fail(VmError.VMXON_IN_ROOT)
    if (!this.#isPage(pointer) || this.#physical.le32(pointer) !== this.#capability.revision) {
      return VM_FAIL_INVALID
    }
    this.#vmxonPointer = pointer
    return VM_SUCCEED
  }

  vmclear(pointer: number): number {
    if (!this.#isPage(pointer)) return this.fail(VmError.VMCLEAR_ADDRESS)
    if (pointer === this.#vmxonPointer) return this.fail(VmError.VMCLEAR_VMXON_POINTER)
    this.#region(pointer).launched = false
    if (pointer === this.#currentPointer) {
      this.#currentPointer = null
      this.current = null
    }
    return VM_SUCCEED
  }

  vmptrld(pointer: number): number {
    if (!this.#isPage(pointer)) return this.fail(VmError.VMPTRLD_ADDRESS)
    if (pointer === this.#vmxonPointer) return this.fail(VmError.VMPTRLD_VMXON_POINTER)
    if (this.#physical.le32(pointer) !== this.#capability.revision) return this.fail(VmError.VMPTRLD_REVISION)
    this.current = this.#region(pointer)
    this.#currentPointer = pointer
    return VM_SUCCEED
  }

  /** The address of the current VMCS; all ones, as VMPTRST stores it, is null here. */
  vmptrst(): number | null {
    return this.#currentPointer
  }

  /** VMREAD in 64-bit mode: the value, or a failure as a negative number: -12 no such field, -1 no VMCS. */
  vmread(encoding: number): bigint | number {
    const { current } = this
    if (current === null) return VM_FAIL_INVALID
    if (slotOf(encoding) === NO_SLOT) return -this.fail(VmError.NO_SUCH_FIELD)
    if (encoding % 2 === 1) return BigInt(current.high(encoding - 1))
    return current.getWide(encoding)
  }

  vmwrite(encoding: number, value: bigint): number {
    const { current } = this
    if (current === null) return VM_FAIL_INVALID
    if (slotOf(encoding) === NO_SLOT) return this.fail(VmError.NO_SUCH_FIELD)
    if (kindOf(encoding) === 'exit information' && !this.#capability.writesReadOnlyFields) {
      return this.fail(VmError.READ_ONLY_FIELD)
    }
    if (encoding % 2 === 1) current.putHalf(encoding - 1, Number(value & 0xffff_ffffn), true)
    else if (widthOf(encoding) === 64 || widthOf(encoding) === 'natural') current.putWide(encoding, value)
    else current.putHalf(encoding, Number(value & 0xffff_ffffn), false)
    return VM_SUCCEED
  }

  /** Type 1 a single context, 2 all; `descriptor` is the 128-bit memory operand. */
  invept(type: number, descriptor: bigint): number {
    const pointer = Number(descriptor & 0xffff_ffff_ffff_ffffn)
    if (type !== 1 && type !== 2) return this.fail(VmError.INVALIDATION_OPERAND)
    if (descriptor >> 64n !== 0n) return this.fail(VmError.INVALIDATION_OPERAND)
    if (type === 1 && !this.#isEptPointer(pointer)) return this.fail(VmError.INVALIDATION_OPERAND)
    this.#cache.invalidate()
    return VM_SUCCEED
  }

  /**
   * Type 0 an address, 1 a context, 2 all, 3 a context without its globals. Bits 15:0 of the descriptor are the
   * VPID, 127:64 the linear address. The model remembers only guest-physical translations, which INVVPID leaves.
   */
  invvpid(type: number, descriptor: bigint): number {
    if (!(type >= 0 && type <= 3)) return this.fail(VmError.INVALIDATION_OPERAND)
    if (((descriptor >> 16n) & 0xffff_ffff_ffffn) !== 0n) return this.fail(VmError.INVALIDATION_OPERAND)
    if (type !== 2 && (descriptor & 0xffffn) === 0n) return this.fail(VmError.INVALIDATION_OPERAND)
    const linear = descriptor >> 64n
    if (type === 0 && !isCanonical(Number(linear & 0xffff_ffffn), Number(linear >> 32n))) {
      return this.fail(VmError.INVALIDATION_OPERAND)
    }
    return VM_SUCCEED
  }

  /** VMfail: with a current VMCS the error is left in it. */
  fail(error: number): number {
    if (this.current === null) return VM_FAIL_INVALID
    this.current.store(Field.instructionError, error)
    return error
  }

  save(): Plain {
    const regions: { [pointer: string]: Plain } = {}
    for (const [pointer, vmcs] of this.#regions) regions[pointer.toString(16)] = vmcs.save()
    return { vmxon: this.#vmxonPointer, current: this.#currentPointer, regions }
  }

  /** What is wrong with the state, or null. A state that is refused changes nothing. */
  load(state: Plain): string | null {
    if (typeof state !== 'object' || state === null) return 'VMX state is not an object'
    const { vmxon, current, regions } = state as { readonly [name: string]: Plain | undefined }
    if (!isPointer(vmxon) || !isPointer(current)) return 'a VMX pointer is not an address'
    if (typeof regions !== 'object' || regions === null) return 'VMCS regions are not an object'
    const loaded = new Map<number, Vmcs>()
    for (const [name, saved] of Object.entries(regions)) {
      const vmcs = new Vmcs(CHECK_READERS)
      const wrong = vmcs.load(saved ?? null)
      if (wrong !== null) return wrong
      loaded.set(Number.parseInt(name, 16), vmcs)
    }
    if (current !== null && !loaded.has(current)) return 'the current VMCS is not among the regions'
    this.#regions.clear()
    for (const [pointer, vmcs] of loaded) this.#regions.set(pointer, vmcs)
    this.#vmxonPointer = vmxon
    this.#currentPointer = current
    this.current = current === null ? null : (loaded.get(current) ?? null)
    return null
  }

  #region(pointer: number): Vmcs {
    const known = this.#regions.get(pointer)
    if (known !== undefined) return known
    const vmcs = new Vmcs(CHECK_READERS)
    this.#regions.set(pointer, vmcs)
    return vmcs
  }

  #isPage(pointer: number): boolean {
    return pointer % PAGE === 0 && pointer < this.#capability.physicalEnd
  }

  #isEptPointer(pointer: number): boolean {
    const low = pointer % TWO_32
    const flags = this.#capability.eptAccessedDirty ? 0xf80 : 0xfc0
    return (
      eptMemoryType(low) &&
      ((low >> 3) & 7) === 3 &&
      (low & flags) === 0 &&
      pointer < this.#capability.physicalEnd
    )
  }
}

function isPointer(value: Plain | undefined): value is number | null {
  return value === null || (typeof value === 'number' && value >= 0 && Number.isSafeInteger(value))
}
