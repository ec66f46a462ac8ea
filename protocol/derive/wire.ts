import type { AnyLayout } from '../layout.ts'
import { isLayout } from '../layout.ts'
import type { RequirementText } from '../requirement.ts'
import type { FeatureTable } from '../version.ts'
import type { DescriptorRule, GateRule, MessageRule, PayloadRule } from '../vhost-user/message.ts'
import { row, table } from './table.ts'

type Exports = { readonly [name: string]: unknown }

/**
 * Every layout among a module's exports, in the order of their names, including those in exported tables and
 * lists. Found by walking, so that a new structure cannot be forgotten.
 *
 * @throws when two different structures bear one name, since a trace could not tell them apart.
 */
export function layoutsOf(exports: Exports): readonly AnyLayout[] {
  const found = new Map<string, AnyLayout>()
  const seen = new Set<object>()
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null || seen.has(value)) return
    seen.add(value)
    if (!isLayout(value)) {
      if (isPlain(value)) Object.values(value).forEach(visit)
      return
    }
    const other = found.get(value.$name)
    if (other !== undefined && other !== value) throw new Error(`two structures are called ${value.$name}`)
    found.set(value.$name, value)
    for (const { spec } of value.$fields) {
      if (spec.kind === 'nested') visit(spec.layout)
      if (spec.kind === 'array' || spec.kind === 'tail') visit(spec.element)
    }
  }
  visit({ ...exports })
  return [...found.values()].sort((a, b) => compare(a.$name, b.$name))
}

/** The text of `WIRE.md`: every structure, feature table, message and requirement among a module's exports. */
export function wire(exports: Exports, requirements: { readonly [id: string]: RequirementText }): string {
  return [
    '# The wire',
    'Made from the declarations by `npm run wire`; a test compares. Change the declarations, not this file.',
    '## Structures',
    ...layoutsOf(exports).map((layout) => table(layout).trimEnd()),
    '## Features',
    ...featureTablesOf(exports).map(([name, features]) => featureText(name, features)),
    '## Messages',
    ...messageTablesOf(exports).map(([name, messages]) => messageText(name, messages)),
    '## Requirements',
    requirementText(requirements),
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n')
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  return Array.isArray(value) || prototype === Object.prototype || prototype === null
}

/** By code unit: the same on every machine, whatever its language. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

type Messages = { readonly [name: string]: Omit<MessageRule, 'name'> }

/** A table by name, each of whose entries has these members. */
function isTableOf(value: unknown, ...members: readonly string[]): boolean {
  if (typeof value !== 'object' || value === null || !isPlain(value) || isLayout(value)) return false
  const entries: unknown[] = Object.values(value)
  return (
    entries.length > 0 &&
    entries.every(
      (entry) => typeof entry === 'object' && entry !== null && members.every((member) => member in entry),
    )
  )
}

function tablesOf<T>(exports: Exports, ...members: readonly string[]): readonly (readonly [string, T])[] {
  const tables: (readonly [string, T])[] = []
  for (const [name, value] of Object.entries(exports)) {
    if (isTableOf(value, ...members)) tables.push([name, value as T])
  }
  return tables.sort(([a], [b]) => compare(a, b))
}

function featureTablesOf(exports: Exports): readonly (readonly [string, FeatureTable])[] {
  return tablesOf(exports, 'bit', 'meaning')
}

function messageTablesOf(exports: Exports): readonly (readonly [string, Messages])[] {
  return tablesOf(exports, 'code', 'payload', 'gate', 'reply')
}

function messageText(name: string, messages: Messages): string {
  const rows = Object.entries(messages).map(([message, { code, payload, descriptors, gate, reply }]) => {
    const answer =
      reply.when === 'never'
        ? ''
        : `${carried(reply.payload, reply.descriptors)}${reply.when === 'always' ? '' : ` (${reply.when})`}`
    return row([String(code), `\`${message}\``, carried(payload, descriptors), gateText(gate), answer])
  })
  const head = [
    row(['code', 'message', 'carries', 'with', 'answered by']),
    row(['---', '---', '---', '---', '---']),
  ]
  return [`### ${name}`, '', ...head, ...rows].join('\n')
}

function carried({ layout, bytesMin, bytesMax }: PayloadRule, { min, max }: DescriptorRule): string {
  const bytes = bytesMin === bytesMax ? `${bytesMax}` : `${bytesMin}-${bytesMax}`
  const payload = bytesMax === 0 ? [] : [`${layout === null ? '' : `\`${layout.$name}\` `}${bytes} bytes`]
  const count = min === max ? `${max}` : `${min}-${max}`
  const ride = max === 0 ? [] : [`${count} ${max === 1 ? 'descriptor' : 'descriptors'}`]
  const parts = [...payload, ...ride]
  return parts.length === 0 ? 'nothing' : parts.join(', ')
}

function gateText({ protocol, unsettled, offered, accepted }: GateRule): string {
  return [
    ...protocol,
    ...unsettled.map((name) => `${name} (unsettled)`),
    ...offered.map((bit) => `VIRTIO bit ${bit} offered`),
    ...accepted.map((bit) => `VIRTIO bit ${bit} accepted`),
  ].join(', ')
}

function featureText(name: string, features: FeatureTable): string {
  const versioned = Object.values(features).some(({ since }) => since !== undefined)
  const since = (cell: string): readonly string[] => (versioned ? [cell] : [])
  const rows = Object.entries(features)
    .sort(([, a], [, b]) => a.bit - b.bit)
    .map(([feature, { bit, since: version = '', needs = [], meaning }]) =>
      row([String(bit), `\`${feature}\``, ...since(version), needs.join(', '), meaning]),
    )
  const head = [
    row(['bit', 'feature', ...since('since'), 'needs', 'meaning']),
    row(['---', '---', ...since('---'), '---', '---']),
  ]
  return [`### ${name}`, '', ...head, ...rows].join('\n')
}

function requirementText(requirements: { readonly [id: string]: RequirementText }): string {
  const rows = Object.entries(requirements)
    .sort(([a], [b]) => compare(a, b))
    .map(([id, { party, level, text, ref }]) => row([`\`${id}\``, party, level, text, ref]))
  return [
    row(['rule', 'binds', 'level', 'text', 'where']),
    row(['---', '---', '---', '---', '---']),
    ...rows,
  ].join('\n')
}
