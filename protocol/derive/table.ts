import type { AnyLayout, ElementSpec, Spec } from '../layout.ts'
import { isLayout } from '../layout.ts'

/** One structure as a Markdown section: its size, by version where versions differ, and its fields. */
export function table(layout: AnyLayout): string {
  const packed = layout.$packed ? ', packed' : ''
  const tail = layout.$fields.some(({ spec }) => spec.kind === 'tail') ? ' and a tail' : ''
  const rows = layout.$fields.map(({ name, offset, spec }) =>
    row([`0x${offset.toString(16)}`, widthText(spec), code(name), whenText(spec), meaningText(spec)]),
  )
  const lines = [
    `### ${layout.$name}`,
    '',
    `${layout.$ref}. ${layout.$size} bytes${tail}${packed}.${sizesText(layout)}`,
    '',
    row(['offset', 'width', 'field', 'when', 'meaning']),
    row(['---', '---', '---', '---', '---']),
    ...rows,
  ]
  return `${lines.join('\n')}\n`
}

/** One row of a Markdown table; a bar inside a cell is escaped. */
export function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function code(text: string): string {
  return `\`${text}\``
}

function sizesText(layout: AnyLayout): string {
  if (layout.$sizes === null) return ''
  const sizes = Object.entries(layout.$sizes).map(([version, size]) => `${version}: ${size}`)
  return ` By version: ${sizes.join(', ')}.`
}

function elementText(element: ElementSpec): string {
  return isLayout(element) ? code(element.$name) : element.width
}

function widthText(spec: Spec): string {
  switch (spec.kind) {
    case 'scalar':
      return spec.width
    case 'bytes':
      return `${spec.lengthBytes} bytes`
    case 'array':
      return `${elementText(spec.element)}[${spec.count}]`
    case 'tail':
      return `${elementText(spec.element)}[]`
    case 'nested':
      return code(spec.layout.$name)
    default:
      return spec satisfies never
  }
}

function whenText(spec: Spec): string {
  const parts = [
    spec.access ?? '',
    spec.since === undefined ? '' : `since ${spec.since}`,
    spec.when === undefined ? '' : `with ${spec.when}`,
  ]
  return parts.filter((part) => part !== '').join(', ')
}

function vocabularyText(label: string, values: { readonly [name: string]: number } | undefined): string {
  if (values === undefined) return ''
  const radix = label === 'bits' ? 16 : 10
  const prefix = label === 'bits' ? '0x' : ''
  const entries = Object.entries(values).map(([name, value]) => `${name} ${prefix}${value.toString(radix)}`)
  return `; ${label}: ${entries.join(', ')}`
}

function meaningText(spec: Spec): string {
  const element = spec.kind === 'array' || spec.kind === 'tail' ? spec.element : null
  const each = element === null || isLayout(element) ? '' : ` (each: ${meaningText(element)})`
  const reserved = spec.reserved === true ? '; reserved' : ''
  return `${spec.meaning}${each}${reserved}${vocabularyText('codes', spec.names)}${vocabularyText('bits', spec.bits)}`
}
