import type { AnyLayout, ElementSpec, FieldOptions, Scalar, Spec } from '../layout.ts'
import { isLayout } from '../layout.ts'
import type { AnyStructValue, AnyValue, PartOf } from './value.ts'

/** Elements of an array that are spelled out; the rest is counted. */
const SHOWN = 16

/**
 * One line for a trace or a failing test: `virtq_desc@0x0 addr=0x10000 len=4096 flags=NEXT|WRITE next=2`.
 *
 * 64-bit values and unnamed bits are hexadecimal, unknown codes decimal. Fields that are missing from the
 * value, and reserved ones that are zero, are not printed.
 */
export function print<L extends AnyLayout>(layout: L, value: PartOf<L>, at = 0): string {
  const fields = printFields(layout, value as AnyStructValue)
  return [`${layout.$name}@0x${at.toString(16)}`, ...fields].join(' ')
}

/** A code by its name, bits by theirs, anything else as a number. */
export function printScalar(value: number | bigint, width: Scalar, options: FieldOptions): string {
  if (options.names !== undefined) {
    const entry = Object.entries(options.names).find(([, code]) => BigInt(code) === BigInt(value))
    return entry?.[0] ?? String(value)
  }
  if (options.bits !== undefined) return printBits(BigInt(value), options.bits)
  return width === 'le64' || width === 'be64' ? `0x${value.toString(16)}` : String(value)
}

function printBits(value: bigint, bits: { readonly [name: string]: number }): string {
  let rest = value
  const parts: string[] = []
  for (const [name, bit] of Object.entries(bits)) {
    if (bit === 0 || (value & BigInt(bit)) !== BigInt(bit)) continue
    parts.push(name)
    rest &= ~BigInt(bit)
  }
  if (rest !== 0n) parts.push(`0x${rest.toString(16)}`)
  return parts.length === 0 ? '0' : parts.join('|')
}

function printFields(layout: AnyLayout, value: AnyStructValue): string[] {
  const parts: string[] = []
  for (const { name, spec } of layout.$fields) {
    const one = value[name]
    if (one === undefined || (spec.reserved === true && isZero(one))) continue
    parts.push(`${name}=${printSpec(spec, one)}`)
  }
  return parts
}

function printSpec(spec: Spec, value: AnyValue): string {
  switch (spec.kind) {
    case 'scalar':
      return printElement(spec, value)
    case 'bytes':
      return [...(value as Uint8Array)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
    case 'array':
    case 'tail': {
      const all = value as readonly AnyValue[]
      const shown = all.slice(0, SHOWN).map((one) => printElement(spec.element, one))
      const rest = all.length > SHOWN ? [`…+${all.length - SHOWN}`] : []
      return `[${[...shown, ...rest].join(',')}]`
    }
    case 'nested':
      return printElement(spec.layout, value)
    default:
      return spec satisfies never
  }
}

function printElement(element: ElementSpec, value: AnyValue): string {
  if (isLayout(element)) return `{${printFields(element, value as AnyStructValue).join(' ')}}`
  return printScalar(value as number | bigint, element.width, element)
}

/** Whether every byte of a value is zero. */
export function isZero(value: AnyValue): boolean {
  if (typeof value === 'number' || typeof value === 'bigint') return BigInt(value) === 0n
  if (value instanceof Uint8Array) return value.every((byte) => byte === 0)
  const parts = Array.isArray(value) ? (value as readonly AnyValue[]) : Object.values(value)
  return parts.every((part) => part === undefined || isZero(part))
}
