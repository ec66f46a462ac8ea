import type { Field } from '../../../protocol/layout.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { PoolType, poolTag } from '../pool.ts'

/** A text the PnP manager frees. */
export const TEXT_TAG = poolTag('PpTx')
const UNIT = 0 as Field<'le16'>
const UNIT_BYTES = 2

type TextParts = Pick<KernelParts, 'pool' | 'hal' | 'memory'>

/** A null-terminated UTF-16 text in paged pool: its address, or 0 when memory is short. */
export function allocateText(parts: TextParts, text: string): number {
  return allocateUnits(parts, `${text}\0`)
}

/** A REG_MULTI_SZ: texts that each end with a null, and one null more. */
export function allocateTextList(parts: TextParts, texts: readonly string[]): number {
  return allocateUnits(parts, `${texts.map((text) => `${text}\0`).join('')}\0`)
}

function allocateUnits(parts: TextParts, units: string): number {
  const at = parts.pool.allocate(PoolType.PAGED, units.length * UNIT_BYTES, TEXT_TAG, parts.hal.irql)
  if (at === 0) return 0
  for (let index = 0; index < units.length; index++) {
    parts.memory.window.putLe16(UNIT, units.charCodeAt(index), at + index * UNIT_BYTES)
  }
  return at
}

/** The text at `at`, or null when it does not end inside its pool block. */
export function readText(parts: TextParts, at: number): string | null {
  const limit = Math.floor(parts.pool.lengthOf(at) / UNIT_BYTES)
  let text = ''
  for (let index = 0; index < limit; index++) {
    const unit = parts.memory.window.le16(UNIT, at + index * UNIT_BYTES)
    if (unit === 0) return text
    text += String.fromCharCode(unit)
  }
  return null
}

/** The texts at `at`, or null when the list does not end inside its pool block. */
export function readTextList(parts: TextParts, at: number): string[] | null {
  const limit = Math.floor(parts.pool.lengthOf(at) / UNIT_BYTES)
  const texts: string[] = []
  let text = ''
  for (let index = 0; index < limit; index++) {
    const unit = parts.memory.window.le16(UNIT, at + index * UNIT_BYTES)
    if (unit !== 0) text += String.fromCharCode(unit)
    else if (text === '') return texts
    else {
      texts.push(text)
      text = ''
    }
  }
  return null
}
