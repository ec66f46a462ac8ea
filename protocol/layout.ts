/**
 * A wire structure declared once, as data.
 *
 * `struct()` checks a declaration against the size its specification gives and returns an object whose
 * members are field offsets. An offset remembers its width in its type, so reading a 16-bit field with a
 * 32-bit accessor does not compile. Everything that may be slow (codec, printer, syntax check, tables) is
 * derived by walking `$fields`; see `derive/`.
 */

export type Scalar = 'u8' | 'le16' | 'le32' | 'le64' | 'be16' | 'be32' | 'be64'

declare const WIDTH: unique symbol
declare const ELEMENT: unique symbol

/** Byte offset of a scalar inside its structure; the brand is its width and byte order. */
export type Field<W extends Scalar> = number & { readonly [WIDTH]: W }
/** Byte offset of the first element of an array; add `index * element size` as the accessor's `base`. */
export type Elements<E> = number & { readonly [ELEMENT]: E }

export const SCALAR_BYTES = {
  u8: 1,
  le16: 2,
  le32: 4,
  le64: 8,
  be16: 2,
  be32: 4,
  be64: 8,
} as const satisfies {
  readonly [W in Scalar]: number
}

export interface FieldOptions {
  /** The field's vocabulary, when a value is a code. Other values stay representable. */
  readonly names?: { readonly [name: string]: number }
  /** Single bits by name; a value with another bit set is out of vocabulary. */
  readonly bits?: { readonly [name: string]: number }
  /** Must be zero on the wire. */
  readonly reserved?: boolean
  /** First version that has the field. Needs a size per version on the structure. */
  readonly since?: string
  /** Offset, for register maps with gaps. Without it the field follows the one before. */
  readonly at?: number
  /** Who may access a register. */
  readonly access?: 'R' | 'W' | 'RW'
  /** Feature (or other condition) under which the field is meaningful. */
  readonly when?: string
}

interface Described extends FieldOptions {
  readonly meaning: string
}
export interface ScalarSpec<W extends Scalar = Scalar> extends Described {
  readonly kind: 'scalar'
  readonly width: W
}
export interface BytesSpec extends Described {
  readonly kind: 'bytes'
  readonly lengthBytes: number
}
export type ElementSpec = ScalarSpec | AnyLayout
export interface ArraySpec<E extends ElementSpec = ElementSpec> extends Described {
  readonly kind: 'array'
  readonly element: E
  readonly count: number
}
/** A flexible array at the end; its length comes from elsewhere. Adds nothing to the structure's size. */
export interface TailSpec<E extends ElementSpec = ElementSpec> extends Described {
  readonly kind: 'tail'
  readonly element: E
}
export interface NestedSpec<L extends AnyLayout = AnyLayout> extends Described {
  readonly kind: 'nested'
  readonly layout: L
}
export type Spec = ScalarSpec | BytesSpec | ArraySpec | TailSpec | NestedSpec
export type Specs = { readonly [name: string]: Spec }

/** A field with its place, as the derived tools see it. */
export interface PlacedField {
  readonly name: string
  readonly offset: number
  /** Bytes taken; 0 for a tail. */
  readonly lengthBytes: number
  readonly spec: Spec
}

export interface AnyLayout {
  readonly $name: string
  /** Specification and section, for people. */
  readonly $ref: string
  /** Bytes of the newest version, without a tail. */
  readonly $size: number
  /** Bytes by version, oldest first; null when all versions agree. */
  readonly $sizes: { readonly [version: string]: number } | null
  readonly $packed: boolean
  readonly $fields: readonly PlacedField[]
  /** The declaration itself; carried for the derived types. */
  readonly $specs: Specs
}

type PlaceOf<S> =
  S extends ScalarSpec<infer W>
    ? Field<W>
    : S extends BytesSpec
      ? Elements<'u8'>
      : S extends ArraySpec<infer E> | TailSpec<infer E>
        ? Elements<E extends ScalarSpec<infer W> ? W : E>
        : S extends NestedSpec<infer L>
          ? Elements<L>
          : never

export type Layout<F extends Specs = Specs> = AnyLayout & { readonly $specs: F } & {
  readonly [K in keyof F]: PlaceOf<F[K]>
}

function scalar<W extends Scalar>(width: W) {
  return (meaning: string, options: FieldOptions = {}): ScalarSpec<W> => ({
    kind: 'scalar',
    width,
    meaning,
    ...options,
  })
}

export const u8 = scalar('u8')
export const le16 = scalar('le16')
export const le32 = scalar('le32')
export const le64 = scalar('le64')
export const be16 = scalar('be16')
export const be32 = scalar('be32')
export const be64 = scalar('be64')

/** `lengthBytes` opaque bytes: text, identifiers, padding. */
export function bytes(lengthBytes: number, meaning: string, options: FieldOptions = {}): BytesSpec {
  return { kind: 'bytes', lengthBytes, meaning, ...options }
}

export function array<E extends ElementSpec>(
  element: E,
  count: number,
  meaning: string,
  options: FieldOptions = {},
): ArraySpec<E> {
  return { kind: 'array', element, count, meaning, ...options }
}

export function tail<E extends ElementSpec>(
  element: E,
  meaning: string,
  options: FieldOptions = {},
): TailSpec<E> {
  return { kind: 'tail', element, meaning, ...options }
}

export function nested<L extends AnyLayout>(
  layout: L,
  meaning: string,
  options: FieldOptions = {},
): NestedSpec<L> {
  return { kind: 'nested', layout, meaning, ...options }
}

export function isLayout(value: unknown): value is AnyLayout {
  return typeof value === 'object' && value !== null && '$fields' in value && '$name' in value
}

/** Bytes of one element of an array or tail. */
export function elementBytes(element: ElementSpec): number {
  return isLayout(element) ? element.$size : SCALAR_BYTES[element.width]
}

/** Natural alignment of an element: its own width, or the widest member's. */
function alignmentOf(spec: Spec | ElementSpec): number {
  if (isLayout(spec)) {
    return spec.$packed ? 1 : spec.$fields.reduce((most, field) => Math.max(most, alignmentOf(field.spec)), 1)
  }
  switch (spec.kind) {
    case 'scalar':
      return SCALAR_BYTES[spec.width]
    case 'bytes':
      return 1
    case 'array':
    case 'tail':
      return alignmentOf(spec.element)
    case 'nested':
      return alignmentOf(spec.layout)
    default:
      return spec satisfies never
  }
}

function lengthOf(spec: Spec): number {
  switch (spec.kind) {
    case 'scalar':
      return SCALAR_BYTES[spec.width]
    case 'bytes':
      return spec.lengthBytes
    case 'array':
      return elementBytes(spec.element) * spec.count
    case 'tail':
      return 0
    case 'nested':
      return spec.layout.$size
    default:
      return spec satisfies never
  }
}

/** Sizes by version, oldest first. Integer-like keys would be reordered by JavaScript; versions have a dot. */
export type SizeByVersion = { readonly [version: string]: number }

export interface StructOptions {
  /** No natural alignment: fields follow each other byte by byte. */
  readonly packed?: boolean
}

/** Structures a field is made of. */
function partsOf(spec: Spec): readonly AnyLayout[] {
  if (spec.kind === 'nested') return [spec.layout]
  return (spec.kind === 'array' || spec.kind === 'tail') && isLayout(spec.element) ? [spec.element] : []
}

function place(name: string, specs: Specs, packed: boolean): PlacedField[] {
  const placed: PlacedField[] = []
  let end = 0
  for (const [field, spec] of Object.entries(specs)) {
    if (field.startsWith('$')) throw new Error(`${name}.${field}: names with $ are the layout's own`)
    if (placed.at(-1)?.spec.kind === 'tail') throw new Error(`${name}.${field}: nothing follows a tail`)
    if (partsOf(spec).some((part) => part.$fields.at(-1)?.spec.kind === 'tail')) {
      throw new Error(`${name}.${field}: a structure with a tail has no size to be placed by`)
    }
    const offset = spec.at ?? end
    if (offset < end) throw new Error(`${name}.${field}: offset ${offset} overlaps the field before`)
    const alignment = packed ? 1 : alignmentOf(spec)
    if (offset % alignment !== 0) {
      throw new Error(`${name}.${field}: offset ${offset} is not a multiple of ${alignment}`)
    }
    const lengthBytes = lengthOf(spec)
    placed.push({ name: field, offset, lengthBytes, spec })
    end = offset + lengthBytes
  }
  return placed
}

function checkSizes(name: string, placed: readonly PlacedField[], sizes: SizeByVersion): void {
  const versions = Object.keys(sizes)
  for (const field of placed) {
    if (field.spec.since !== undefined && !versions.includes(field.spec.since)) {
      throw new Error(`${name}.${field.name}: since ${field.spec.since}, which has no size`)
    }
  }
  versions.forEach((version, newest) => {
    const known = new Set(versions.slice(0, newest + 1))
    const end = placed
      .filter((field) => field.spec.since === undefined || known.has(field.spec.since))
      .reduce((most, field) => Math.max(most, field.offset + field.lengthBytes), 0)
    if (end !== sizes[version]) {
      throw new Error(`${name} ${version}: fields end at ${end}, the specification says ${sizes[version]}`)
    }
  })
}

/**
 * Declares a structure.
 *
 * @param size bytes the specification gives, one number or one per version (oldest first).
 * @throws at load when the fields do not add up to that size, overlap, or are not naturally aligned.
 */
export function struct<const F extends Specs>(
  name: string,
  ref: string,
  size: number | SizeByVersion,
  specs: F,
  options: StructOptions = {},
): Layout<F> {
  const packed = options.packed ?? false
  const placed = place(name, specs, packed)
  const sizes = typeof size === 'number' ? null : size
  checkSizes(name, placed, sizes ?? { 'only.version': size as number })
  const layout: AnyLayout = {
    $name: name,
    $ref: ref,
    $size: sizes === null ? (size as number) : Math.max(...Object.values(sizes)),
    $sizes: sizes,
    $packed: packed,
    $fields: placed,
    $specs: specs,
  }
  // Own properties added one by one, not spread: V8 keeps such an object fast and folds `Struct.field` to its
  // number, which a dictionary-mode object would look up on every access (3 times the ring's round trip).
  const built: { [name: string]: unknown } = { ...layout }
  for (const field of placed) built[field.name] = field.offset
  return Object.freeze(built) as Layout<F>
}
