import type { AnyLayout, ElementSpec, FieldOptions, Spec } from '../layout.ts'
import { isLayout } from '../layout.ts'
import { isZero } from './print.ts'
import type { AnyStructValue, AnyValue, PartOf } from './value.ts'

/**
 * The first condition of the declaration that a value breaks, as text, or null: the error is the condition.
 *
 * Syntax only: codes with a vocabulary, named bits, reserved fields. Whether a sector exists or a feature was
 * negotiated is for whoever knows the device. Fields missing from the value are not judged.
 */
export function invalid<L extends AnyLayout>(layout: L, value: PartOf<L>): string | null {
  return invalidStruct(layout, value as AnyStructValue, layout.$name)
}

function invalidStruct(layout: AnyLayout, value: AnyStructValue, where: string): string | null {
  for (const { name, spec } of layout.$fields) {
    const one = value[name]
    if (one === undefined) continue
    const broken = invalidSpec(spec, one, `${where}.${name}`)
    if (broken !== null) return broken
  }
  return null
}

function invalidSpec(spec: Spec, value: AnyValue, where: string): string | null {
  if (spec.reserved === true) return isZero(value) ? null : `${where} != 0`
  switch (spec.kind) {
    case 'scalar':
      return invalidScalar(spec, value, where)
    case 'bytes':
      return null
    case 'array':
    case 'tail':
      return invalidElements(spec.element, value as readonly AnyValue[], where)
    case 'nested':
      return invalidStruct(spec.layout, value as AnyStructValue, where)
    default:
      return spec satisfies never
  }
}

function invalidElements(element: ElementSpec, values: readonly AnyValue[], where: string): string | null {
  for (const [index, value] of values.entries()) {
    const path = `${where}[${index}]`
    const broken = isLayout(element)
      ? invalidStruct(element, value as AnyStructValue, path)
      : invalidSpec(element, value, path)
    if (broken !== null) return broken
  }
  return null
}

function invalidScalar(options: FieldOptions, value: AnyValue, where: string): string | null {
  const whole = BigInt(value as number | bigint)
  if (options.names !== undefined) {
    const known = Object.values(options.names).some((code) => BigInt(code) === whole)
    return known ? null : `${where} is not one of ${Object.keys(options.names).join(', ')}`
  }
  if (options.bits !== undefined) {
    const all = Object.values(options.bits).reduce((union, bit) => union | BigInt(bit), 0n)
    return (whole & ~all) === 0n
      ? null
      : `${where} has bits other than ${Object.keys(options.bits).join(', ')}`
  }
  return null
}
