import type { DiskOptions, Opened } from './backend.ts'
import { oneLine, quote } from './quote.ts'

/** One layer as written: whether the kind exists and what its options mean is the registry's to say. */
export interface DiskLayer extends DiskOptions {
  readonly kind: string
}

/** A stack of layers: the source first, each wrapper over what stands before it. Never empty. */
export interface DiskSpec {
  readonly layers: readonly DiskLayer[]
}

/** A layer as plain data: the wrapper outside, the source innermost. */
export interface DiskJson {
  readonly kind: string
  readonly over?: DiskJson
  readonly [option: string]: string | number | boolean | DiskJson | undefined
}

const KIND = /^[a-z][a-z0-9-]*$/
const KEY = /^[A-Za-z][A-Za-z0-9_-]*$/
const LAYERS_MAX = 64
/** JSON's names for the layer's own parts, which no option can have. */
const RESERVED = ['kind', 'over']

/**
 * Parses `kind:argument,key=value | wrapper:key=value`, or the same as JSON.
 *
 * A backslash before `,` `|` `=`, white space or a backslash takes its meaning away; before anything else it
 * stands for itself, so that most Windows paths need none. White space around a kind, key, argument or value
 * does not count. A bare key stands for `key=yes`; a layer's first item, when bare, is its argument.
 */
export function parseSpec(text: string): Opened<DiskSpec> {
  if (text.trimStart().startsWith('{')) return parseJsonSpec(text)
  const layers: DiskLayer[] = []
  const reader = new SpecReader(text)
  do {
    const layer = parseLayer(reader)
    if (!layer.ok) return layer
    layers.push(layer.value)
    if (layers.length > LAYERS_MAX) return failed(`more than ${LAYERS_MAX} layers`)
  } while (reader.took('|'))
  return { ok: true, value: { layers } }
}

/** The canonical text of a spec; `parseSpec` gives the same spec back. */
export function formatSpec(spec: DiskSpec): string {
  return spec.layers.map(formatLayer).join(' | ')
}

/** A spec from plain data, as a bench's description holds it. */
export function specFromJson(json: unknown): Opened<DiskSpec> {
  const layers: DiskLayer[] = []
  let rest: unknown = json
  while (rest !== undefined) {
    if (layers.length === LAYERS_MAX) return failed(`more than ${LAYERS_MAX} layers`)
    if (typeof rest !== 'object' || rest === null || Array.isArray(rest)) {
      return failed(`a layer is ${quote(JSON.stringify(rest) ?? String(rest))}; it takes {"kind":…,"over":…}`)
    }
    const entries = new Map<string, unknown>(Object.entries(rest))
    const kind = entries.get('kind')
    if (typeof kind !== 'string' || !KIND.test(kind)) {
      return failed(`"kind" is ${quote(String(kind))}; it takes a name such as "memory" or "file"`)
    }
    const values = new Map<string, string>()
    for (const [key, value] of entries) {
      if (RESERVED.includes(key)) continue
      if (!KEY.test(key)) return failed(`${kind}: ${quote(key)} is not an option's name`)
      const text = optionText(value)
      if (text === null) return failed(`${kind}: option ${key} takes a text, a number, true or false`)
      values.set(key, text)
    }
    layers.push({ kind, argument: undefined, values })
    rest = entries.get('over')
  }
  return { ok: true, value: { layers: layers.reverse() } }
}

function parseJsonSpec(text: string): Opened<DiskSpec> {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    return failed(`not JSON: ${oneLine(error instanceof Error ? error.message : String(error))}`)
  }
  return specFromJson(json)
}

function optionText(value: unknown): string | null {
  if (typeof value === 'string') return value
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  return typeof value === 'number' && Number.isFinite(value) ? String(value) : null
}

/** Walks the text once. Positions in messages count from 1. */
class SpecReader {
  readonly text: string
  at: number

  constructor(text: string) {
    this.text = text
    this.at = 0
  }

  took(character: string): boolean {
    if (this.text[this.at] !== character) return false
    this.at += 1
    return true
  }

  /** Everything up to the next unescaped one of `stops`, without escapes and without white space around it. */
  until(stops: string): string {
    let out = ''
    let kept = 0
    for (; this.at < this.text.length; this.at++) {
      const character = this.text.charAt(this.at)
      if (stops.includes(character)) break
      const next = this.text.charAt(this.at + 1)
      if (character === '\\' && (isSpecial(next) || isSpace(next))) {
        this.at += 1
        out += next
        kept = out.length
      } else if (!isSpace(character)) {
        out += character
        kept = out.length
      } else if (out !== '') {
        out += character
      }
    }
    return out.slice(0, kept)
  }

  get position(): string {
    return `at position ${this.at + 1}`
  }
}

function parseLayer(reader: SpecReader): Opened<DiskLayer> {
  const start = reader.position
  const kind = reader.until(':,|=')
  if (kind === '') return failed(`no kind ${start}; a spec is kind:argument,key=value`)
  if (!KIND.test(kind)) {
    return failed(`${quote(kind)} ${start} is not a kind's name${/[./\\]/.test(kind) ? pathHint(kind) : ''}`)
  }
  let argument: string | undefined
  const values = new Map<string, string>()
  if (!reader.took(':')) {
    if (reader.at < reader.text.length && reader.text[reader.at] !== '|') {
      return failed(
        `${quote(reader.text.charAt(reader.at))} ${reader.position}; ":" follows the kind ${kind}`,
      )
    }
    return { ok: true, value: { kind, argument, values } }
  }
  let first = true
  do {
    const itemStart = reader.position
    const item = reader.until(',|=')
    const isOption = reader.took('=')
    if (first && !isOption) {
      argument = item === '' ? undefined : item
    } else {
      if (!KEY.test(item)) {
        return failed(`${kind}: ${quote(item)} ${itemStart} is not an option's name; options are key=value`)
      }
      if (RESERVED.includes(item)) return failed(`${kind}: ${quote(item)} ${itemStart} cannot be an option`)
      if (values.has(item)) return failed(`${kind}: option ${item} ${itemStart} is given twice`)
      values.set(item, isOption ? reader.until(',|=') : 'yes')
      if (reader.text[reader.at] === '=') {
        return failed(`${kind}: "=" ${reader.position} in the value of ${item}; write \\= for one`)
      }
    }
    first = false
  } while (reader.took(','))
  return { ok: true, value: { kind, argument, values } }
}

function pathHint(kind: string): string {
  return `; for a file write ${quote(`file:${kind}`)}`
}

function formatLayer(layer: DiskLayer): string {
  const items = layer.argument === undefined ? [] : [escaped(layer.argument)]
  for (const [key, value] of layer.values) items.push(`${key}=${escaped(value)}`)
  return items.length === 0 ? layer.kind : `${layer.kind}:${items.join(',')}`
}

function escaped(text: string): string {
  let out = ''
  const lastInk = text.trimEnd().length
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at)
    const outside = isSpace(character) && (out.trim() === '' || at >= lastInk)
    out += isSpecial(character) || outside ? `\\${character}` : character
  }
  return out
}

function isSpecial(character: string): boolean {
  return character === ',' || character === '|' || character === '=' || character === '\\'
}

function isSpace(character: string): boolean {
  return character !== '' && character.trim() === ''
}

function failed(complaint: string): Opened<never> {
  return { ok: false, error: `disk spec: ${complaint}` }
}
