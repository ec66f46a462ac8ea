import type { AnyLayout, ElementSpec, Scalar, Spec } from '../layout.ts'
import { elementBytes, isLayout, SCALAR_BYTES } from '../layout.ts'
import type { AnyStructValue, AnyValue, PartOf, ValueOf } from './value.ts'
import { fieldsOf, sizeOf, zeroOf } from './value.ts'

/** A decoded value, or the condition the bytes broke. */
export type Decoded<V> =
  | { readonly ok: true; readonly value: V }
  | { readonly ok: false; readonly broken: string }

export interface DecodeOptions {
  /** A version with a size of its own; fields it does not have stay out of the value. */
  readonly version?: string
  /** Elements of the tail. Without it, as many whole ones as the bytes hold. */
  readonly tailCount?: number
}

/**
 * Reads a structure from the start of `bytes`. Slow and complete, for tests and traces; rings use `Window`.
 * Bytes past the structure and its tail are not looked at, and neither are a register map's gaps.
 *
 * @throws RangeError for a version the structure does not have, which is our own mistake.
 */
export function decode<L extends AnyLayout>(
  layout: L,
  bytes: Uint8Array,
  options?: DecodeOptions & { readonly version?: never },
): Decoded<ValueOf<L>>
export function decode<L extends AnyLayout>(
  layout: L,
  bytes: Uint8Array,
  options: DecodeOptions,
): Decoded<PartOf<L>>
export function decode(
  layout: AnyLayout,
  bytes: Uint8Array,
  options: DecodeOptions = {},
): Decoded<AnyStructValue> {
  const size = sizeOf(layout, options.version)
  if (!(size <= bytes.length))
    return { ok: false, broken: `${layout.$name}: ${bytes.length} bytes < ${size}` }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const value: { [field: string]: AnyValue } = {}
  for (const { name, offset, spec } of fieldsOf(layout, options.version)) {
    if (spec.kind !== 'tail') {
      value[name] = readSpec(view, offset, spec)
      continue
    }
    const held = Math.floor((bytes.length - offset) / elementBytes(spec.element))
    const count = options.tailCount ?? held
    if (!(count <= held)) return { ok: false, broken: `${layout.$name}.${name}: ${held} elements < ${count}` }
    value[name] = readElements(view, offset, spec.element, count)
  }
  return { ok: true, value }
}

/**
 * The bytes of a structure. Fields left out are zero, and so are gaps; fields the version does not have are
 * left out of the bytes.
 *
 * @throws RangeError for a value its field cannot hold: what we send is ours to get right.
 */
export function encode<L extends AnyLayout>(
  layout: L,
  value: PartOf<L>,
  version?: string,
): Uint8Array<ArrayBuffer> {
  const given = value as AnyStructValue
  const fields = fieldsOf(layout, version)
  const last = fields.at(-1)
  const tail = last?.spec.kind === 'tail' ? (given[last.name] as readonly AnyValue[] | undefined) : undefined
  const tailBytes = last?.spec.kind === 'tail' ? (tail?.length ?? 0) * elementBytes(last.spec.element) : 0
  const bytes = new Uint8Array(sizeOf(layout, version) + tailBytes)
  const view = new DataView(bytes.buffer)
  for (const { name, offset, spec } of fields) {
    writeSpec(view, offset, spec, given[name] ?? zeroOf(spec), `${layout.$name}.${name}`)
  }
  return bytes
}

function readSpec(view: DataView, at: number, spec: Exclude<Spec, { kind: 'tail' }>): AnyValue {
  switch (spec.kind) {
    case 'scalar':
      return readScalar(view, at, spec.width)
    case 'bytes':
      return new Uint8Array(view.buffer, view.byteOffset + at, spec.lengthBytes).slice()
    case 'array':
      return readElements(view, at, spec.element, spec.count)
    case 'nested':
      return readStruct(view, at, spec.layout)
    default:
      return spec satisfies never
  }
}

function readElements(view: DataView, at: number, element: ElementSpec, count: number): AnyValue[] {
  const step = elementBytes(element)
  return Array.from({ length: count }, (_, index) =>
    isLayout(element)
      ? readStruct(view, at + index * step, element)
      : readScalar(view, at + index * step, element.width),
  )
}

function readStruct(view: DataView, at: number, layout: AnyLayout): AnyStructValue {
  const value: { [field: string]: AnyValue } = {}
  for (const { name, offset, spec } of layout.$fields) {
    value[name] = spec.kind === 'tail' ? [] : readSpec(view, at + offset, spec)
  }
  return value
}

function readScalar(view: DataView, at: number, width: Scalar): number | bigint {
  switch (width) {
    case 'u8':
      return view.getUint8(at)
    case 'le16':
      return view.getUint16(at, true)
    case 'le32':
      return view.getUint32(at, true)
    case 'le64':
      return view.getBigUint64(at, true)
    case 'be16':
      return view.getUint16(at)
    case 'be32':
      return view.getUint32(at)
    case 'be64':
      return view.getBigUint64(at)
    default:
      return width satisfies never
  }
}

function writeSpec(view: DataView, at: number, spec: Spec, value: AnyValue, where: string): void {
  switch (spec.kind) {
    case 'scalar':
      writeScalar(view, at, spec.width, value, where)
      return
    case 'bytes':
      if (!(value instanceof Uint8Array && value.length === spec.lengthBytes)) {
        throw new RangeError(`${where} takes ${spec.lengthBytes} bytes`)
      }
      new Uint8Array(view.buffer, view.byteOffset + at, spec.lengthBytes).set(value)
      return
    case 'array':
    case 'tail':
      writeElements(view, at, spec, value, where)
      return
    case 'nested':
      writeStruct(view, at, spec.layout, value, where)
      return
    default:
      spec satisfies never
  }
}

function writeElements(
  view: DataView,
  at: number,
  spec: Extract<Spec, { kind: 'array' | 'tail' }>,
  value: AnyValue,
  where: string,
): void {
  if (!Array.isArray(value)) throw new RangeError(`${where} takes an array`)
  if (spec.kind === 'array' && value.length !== spec.count) {
    throw new RangeError(`${where} takes ${spec.count} elements`)
  }
  const step = elementBytes(spec.element)
  value.forEach((one: AnyValue, index) => {
    const path = `${where}[${index}]`
    if (isLayout(spec.element)) writeStruct(view, at + index * step, spec.element, one, path)
    else writeScalar(view, at + index * step, spec.element.width, one, path)
  })
}

function writeStruct(view: DataView, at: number, layout: AnyLayout, value: AnyValue, where: string): void {
  if (typeof value !== 'object' || Array.isArray(value) || value instanceof Uint8Array) {
    throw new RangeError(`${where} takes a ${layout.$name}`)
  }
  const given = value as AnyStructValue
  for (const { name, offset, spec } of layout.$fields) {
    writeSpec(view, at + offset, spec, given[name] ?? zeroOf(spec), `${where}.${name}`)
  }
}

function writeScalar(view: DataView, at: number, width: Scalar, value: AnyValue, where: string): void {
  const wide = width === 'le64' || width === 'be64'
  if (typeof value !== 'bigint' && !(typeof value === 'number' && Number.isInteger(value))) {
    throw new RangeError(`${where} takes an integer`)
  }
  const whole = BigInt(value)
  if (whole < 0n || whole >= 1n << BigInt(8 * SCALAR_BYTES[width])) {
    throw new RangeError(`${where}: ${whole} does not fit ${width}`)
  }
  if (wide) view.setBigUint64(at, whole, width === 'le64')
  else if (width === 'u8') view.setUint8(at, Number(whole))
  else if (width === 'le16' || width === 'be16') view.setUint16(at, Number(whole), width === 'le16')
  else view.setUint32(at, Number(whole), width === 'le32')
}
