import fc from 'fast-check'
import type { AnyStructValue, AnyValue, PartOf, ValueOf } from '../../protocol/derive/value.ts'
import { fieldsOf } from '../../protocol/derive/value.ts'
import type { AnyLayout, ElementSpec, Scalar, ScalarSpec, Spec } from '../../protocol/layout.ts'
import { isLayout, SCALAR_BYTES } from '../../protocol/layout.ts'

/** Of a hundred coded fields, how many have a code outside their vocabulary. */
const UNKNOWN_CODE_PERCENT = 10
/** Of a hundred fields with reserved bits, how many have one set. */
const RESERVED_PERCENT = 5
const TAIL_MAX = 8

export interface StructArbitraryOptions {
  /** A version with a size of its own; fields it does not have stay out of the value. */
  readonly version?: string
  /** Most elements of a tail; 8 when left out. */
  readonly tailMax?: number
  /** Never outside the vocabulary, never a reserved bit. */
  readonly wellFormed?: boolean
}

/** Values of a structure: mostly well-formed, since what is refused at the first field tests nothing behind it. */
export function structArbitrary<L extends AnyLayout>(
  layout: L,
  options?: StructArbitraryOptions & { readonly version?: never },
): fc.Arbitrary<ValueOf<L>>
export function structArbitrary<L extends AnyLayout>(
  layout: L,
  options: StructArbitraryOptions,
): fc.Arbitrary<PartOf<L>>
export function structArbitrary(
  layout: AnyLayout,
  options: StructArbitraryOptions = {},
): fc.Arbitrary<AnyStructValue> {
  const entries = fieldsOf(layout, options.version).map(
    ({ name, spec }) => [name, specArbitrary(spec, options)] as const,
  )
  return fc.record(Object.fromEntries(entries))
}

function specArbitrary(spec: Spec, options: StructArbitraryOptions): fc.Arbitrary<AnyValue> {
  switch (spec.kind) {
    case 'scalar':
      return scalarArbitrary(spec, options)
    case 'bytes': {
      const any = fc.uint8Array({ minLength: spec.lengthBytes, maxLength: spec.lengthBytes })
      if (spec.reserved !== true) return any
      return rarely(fc.constant(new Uint8Array(spec.lengthBytes)), any, RESERVED_PERCENT, options)
    }
    case 'array':
      return fc.array(elementArbitrary(spec.element, options), {
        minLength: spec.count,
        maxLength: spec.count,
      })
    case 'tail':
      return fc.array(elementArbitrary(spec.element, options), { maxLength: options.tailMax ?? TAIL_MAX })
    case 'nested':
      return elementArbitrary(spec.layout, options)
    default:
      return spec satisfies never
  }
}

function elementArbitrary(element: ElementSpec, options: StructArbitraryOptions): fc.Arbitrary<AnyValue> {
  const inner = { ...options }
  delete (inner as { version?: string }).version
  return isLayout(element) ? structArbitrary(element, inner) : scalarArbitrary(element, options)
}

function scalarArbitrary(spec: ScalarSpec, options: StructArbitraryOptions): fc.Arbitrary<number | bigint> {
  const most = (1n << BigInt(8 * SCALAR_BYTES[spec.width])) - 1n
  const any = fc.bigInt({ min: 0n, max: most })
  const whole = vocabulary(spec, any, most, options)
  return whole.map((value) => asField(spec.width, value))
}

function vocabulary(
  spec: ScalarSpec,
  any: fc.Arbitrary<bigint>,
  most: bigint,
  options: StructArbitraryOptions,
): fc.Arbitrary<bigint> {
  if (spec.reserved === true) {
    return rarely(fc.constant(0n), fc.bigInt({ min: 1n, max: most }), RESERVED_PERCENT, options)
  }
  if (spec.names !== undefined) {
    const codes = Object.values(spec.names).map(BigInt)
    const unknown = any.filter((value) => !codes.includes(value))
    return rarely(fc.constantFrom(...codes), unknown, UNKNOWN_CODE_PERCENT, options)
  }
  if (spec.bits !== undefined) {
    const bits = Object.values(spec.bits).map(BigInt)
    const all = bits.reduce((union, bit) => union | bit, 0n)
    const known = fc.subarray(bits).map((some) => some.reduce((union, bit) => union | bit, 0n))
    if (all === most) return known
    const unknown = any.filter((value) => (value & ~all) !== 0n)
    return rarely(known, unknown, RESERVED_PERCENT, options)
  }
  return any
}

function rarely<T>(
  usual: fc.Arbitrary<T>,
  rare: fc.Arbitrary<T>,
  percent: number,
  options: StructArbitraryOptions,
): fc.Arbitrary<T> {
  if (options.wellFormed === true) return usual
  return fc.oneof({ weight: 100 - percent, arbitrary: usual }, { weight: percent, arbitrary: rare })
}

function asField(width: Scalar, value: bigint): number | bigint {
  return width === 'le64' || width === 'be64' ? value : Number(value)
}
