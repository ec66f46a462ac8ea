import { type Gpa, gpa } from '../../protocol/memory.ts'
import type { AccessWidth } from '../../protocol/platform.ts'
import { type DecodedAccess, type GeneralRegisters, Register } from '../processor.ts'

const TWO_32 = 0x1_0000_0000
/** MOV between [RBX] and AL, AX, EAX, RAX: an operand-size or REX prefix for 2 and 8 bytes. */
const LENGTHS: Readonly<Record<AccessWidth, number>> = { 1: 2, 2: 3, 4: 2, 8: 3 }

export function movLength(width: AccessWidth): number {
  return LENGTHS[width]
}

/** The load or store behind the present exit; one object, refilled. */
export class Decoded implements DecodedAccess {
  readonly #registers: GeneralRegisters
  kind: 'load' | 'store'
  at: Gpa
  width: AccessWidth

  constructor(registers: GeneralRegisters) {
    this.#registers = registers
    this.kind = 'load'
    this.at = gpa(0)
    this.width = 1
  }

  fill(kind: 'load' | 'store', at: number, width: AccessWidth): this {
    this.kind = kind
    this.at = gpa(at)
    this.width = width
    return this
  }

  get lengthBytes(): number {
    return LENGTHS[this.width]
  }

  get value(): number {
    const low = this.#registers.low(Register.RAX)
    if (this.width === 8) return this.#registers.get(Register.RAX)
    return this.width === 4 ? low : low % 2 ** (this.width * 8)
  }

  /** As MOV does: 32 bits clear the upper half, 8 and 16 leave the rest of the register. */
  answer(value: number): void {
    const { halves } = this.#registers
    if (this.width === 8) this.#registers.set(Register.RAX, value)
    else if (this.width === 4) this.#registers.setLow(Register.RAX, value % TWO_32)
    else {
      const mask = 2 ** (this.width * 8) - 1
      halves[0] = ((halves[0] as number) & ~mask) | (value & mask)
    }
  }
}
