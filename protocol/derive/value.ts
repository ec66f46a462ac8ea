import type {
  AnyLayout,
  ArraySpec,
  BytesSpec,
  ElementSpec,
  NestedSpec,
  PlacedField,
  Scalar,
  ScalarSpec,
  Spec,
  TailSpec,
} from '../layout.ts'

type ScalarValue<W extends Scalar> = W extends 'le64' | 'be64' ? bigint : number
type ElementValue<E> =
  E extends ScalarSpec<infer W> ? ScalarValue<W> : E extends AnyLayout ? ValueOf<E> : never
type SpecValue<S> =
  S extends ScalarSpec<infer W>
    ? ScalarValue<W>
    : S extends BytesSpec
      ? Uint8Array
      : S extends ArraySpec<infer E> | TailSpec<infer E>
        ? readonly ElementValue<E>[]
        : S extends NestedSpec<infer L>
          ? ValueOf<L>
          : never

/** A structure's value by field name: 64-bit fields are bigint, so that an opaque identifier is kept whole. */
export type ValueOf<L extends AnyLayout> = { readonly [K in keyof L['$specs']]: SpecValue<L['$specs'][K]> }

/** A value in which fields may be missing: those a version does not have, or those that are zero. */
export type PartOf<L extends AnyLayout> = { readonly [K in keyof ValueOf<L>]?: ValueOf<L>[K] | undefined }

/** What the derived tools see when they walk a declaration instead of a type. */
export type AnyValue = number | bigint | Uint8Array | readonly AnyValue[] | AnyStructValue
export type AnyStructValue = { readonly [field: string]: AnyValue | undefined }

/** The fields a version has; all of them when no version is given or when all versions agree. */
export function fieldsOf(layout: AnyLayout, version?: string): readonly PlacedField[] {
  if (version === undefined || layout.$sizes === null) return layout.$fields
  const versions = Object.keys(layout.$sizes)
  const newest = versions.indexOf(version)
  if (newest < 0) throw new RangeError(`${layout.$name} has no version ${version}`)
  return layout.$fields.filter(
    ({ spec }) => spec.since === undefined || versions.indexOf(spec.since) <= newest,
  )
}

/** Bytes of a version of the structure, without its tail. */
export function sizeOf(layout: AnyLayout, version?: string): number {
  if (version === undefined || layout.$sizes === null) return layout.$size
  const size = layout.$sizes[version]
  if (size === undefined) throw new RangeError(`${layout.$name} has no version ${version}`)
  return size
}

/** What a left-out field stands for. */
export function zeroOf(spec: Spec | ElementSpec): AnyValue {
  if ('$fields' in spec) {
    return Object.fromEntries(spec.$fields.map((field) => [field.name, zeroOf(field.spec)]))
  }
  switch (spec.kind) {
    case 'scalar':
      return spec.width === 'le64' || spec.width === 'be64' ? 0n : 0
    case 'bytes':
      return new Uint8Array(spec.lengthBytes)
    case 'array':
      return Array.from({ length: spec.count }, () => zeroOf(spec.element))
    case 'tail':
      return []
    case 'nested':
      return zeroOf(spec.layout)
    default:
      return spec satisfies never
  }
}
