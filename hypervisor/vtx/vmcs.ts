import type { Plain } from '../../protocol/platform.ts'
import { FIELD_COUNT, FIELD_NAMES, Field, NO_SLOT, SLOT, slotOf, widthOf } from './field.ts'

const TWO_32 = 0x1_0000_0000

/** Slots whose fields keep 16 bits, 32 bits, or all 64. */
const KEEP_LOW = new Uint32Array(FIELD_COUNT)
const KEEP_HIGH = new Uint32Array(FIELD_COUNT)
FIELD_NAMES.forEach((name, slot) => {
  const width = widthOf(Field[name])
  KEEP_LOW[slot] = width === 16 ? 0xffff : 0xffff_ffff
  KEEP_HIGH[slot] = width === 16 || width === 32 ? 0 : 0xffff_ffff
})

/**
 * One virtual-machine control structure: the fields as 32-bit halves, and which entry checks have to be made
 * again because root software wrote what they read.
 *
 * Encodings passed here are our own constants. Those that come from elsewhere go through the instructions of
 * `vmx.ts`, which answer with the SDM's error numbers.
 */
export class Vmcs {
  readonly words: Uint32Array<ArrayBuffer>
  launched: boolean
  /** Groups of entry checks whose inputs were written since they last passed, as bits. */
  stale: number
  /** By slot: the groups that read the field. */
  readonly #readers: Uint32Array

  constructor(readers: Uint32Array) {
    this.words = new Uint32Array(FIELD_COUNT * 2)
    this.launched = false
    this.stale = 0xffff_ffff
    this.#readers = readers
  }

  /** Bits 31:0. */
  low(encoding: number): number {
    return this.words[(SLOT[encoding] as number) * 2] as number
  }

  /** Bits 63:32; 0 for narrower fields. */
  high(encoding: number): number {
    return this.words[(SLOT[encoding] as number) * 2 + 1] as number
  }

  /** The whole value, exact below 2^53. */
  get(encoding: number): number {
    const at = (SLOT[encoding] as number) * 2
    return (this.words[at] as number) + (this.words[at + 1] as number) * TWO_32
  }

  getWide(encoding: number): bigint {
    return (BigInt(this.high(encoding)) << 32n) | BigInt(this.low(encoding))
  }

  /** A write of root software: 0 … 2^53 - 1, cut to the field's width. */
  put(encoding: number, value: number): void {
    const slot = SLOT[encoding] as number
    this.words[slot * 2] = value & (KEEP_LOW[slot] as number)
    this.words[slot * 2 + 1] = (value / TWO_32) & (KEEP_HIGH[slot] as number)
    this.stale |= this.#readers[slot] as number
  }

  putWide(encoding: number, value: bigint): void {
    this.putHalf(encoding, Number(value & 0xffff_ffffn), false)
    this.putHalf(encoding, Number((value >> 32n) & 0xffff_ffffn), true)
  }

  putHalf(encoding: number, half: number, isHigh: boolean): void {
    const slot = SLOT[encoding] as number
    if (isHigh) this.words[slot * 2 + 1] = half & (KEEP_HIGH[slot] as number)
    else this.words[slot * 2] = half & (KEEP_LOW[slot] as number)
    this.stale |= this.#readers[slot] as number
  }

  /** What the processor itself stores at an exit: state that ran is state that passes, so nothing goes stale. */
  store(encoding: number, value: number): void {
    const slot = SLOT[encoding] as number
    this.words[slot * 2] = value
    this.words[slot * 2 + 1] = value / TWO_32
  }

  save(): Plain {
    const fields: { [name: string]: string } = {}
    for (const name of FIELD_NAMES) fields[name] = this.getWide(Field[name]).toString(16)
    return { launched: this.launched, fields }
  }

  load(state: Plain): string | null {
    if (typeof state !== 'object' || state === null) return 'a VMCS is not an object'
    const { launched, fields } = state as { readonly [name: string]: Plain | undefined }
    if (typeof launched !== 'boolean') return 'the launch state of a VMCS is not a boolean'
    if (typeof fields !== 'object' || fields === null) return 'the fields of a VMCS are not an object'
    const values = fields as { readonly [name: string]: Plain | undefined }
    for (const name of FIELD_NAMES) {
      const text = values[name]
      if (typeof text !== 'string' || !/^[0-9a-f]{1,16}$/.test(text))
        return `VMCS field ${name} is missing or not hexadecimal`
    }
    for (const name of FIELD_NAMES) this.putWide(Field[name], BigInt(`0x${values[name] as string}`))
    this.launched = launched
    this.stale = 0xffff_ffff
    return null
  }
}

/** Whether an encoding names a field or the high half of one. */
export function isField(encoding: number): boolean {
  return slotOf(encoding) !== NO_SLOT
}
