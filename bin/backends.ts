import Table from 'cli-table3'
import type { DiskKind } from '../host/disk/backend.ts'
import { DISK_KINDS, diskKind } from '../host/disk/registry.ts'
import { coloursFor } from './colour.ts'
import { BadInput, conclude, Exit } from './exit.ts'

/** Lists the registry, or all that one kind takes. Returns the exit code. */
export async function backends(
  name: string | undefined,
  options: { readonly json?: boolean },
): Promise<number> {
  const kinds = name === undefined ? DISK_KINDS : [kindNamed(name)]
  if (options.json === true) {
    return conclude(`${JSON.stringify({ schema: 1, disks: kinds.map(plain) }, null, 2)}\n`, Exit.VERIFIED)
  }
  return conclude(name === undefined ? tableText() : kinds.map(kindText).join('\n'), Exit.VERIFIED)
}

function kindNamed(name: string): DiskKind {
  const kind = diskKind(name)
  if (kind !== undefined) return kind
  const names = DISK_KINDS.map((one) => one.kind).join(', ')
  throw new BadInput(`no backend ${JSON.stringify(name)}; backends are ${names}`)
}

function plain({ kind, role, summary, example, argument, options }: DiskKind) {
  return { kind, role, summary, example, argument: argument ?? null, options }
}

const NO_BORDERS = Object.fromEntries(
  ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right', 'left']
    .concat(['left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'])
    .map((name) => [name, name === 'middle' ? '  ' : '']),
)

function tableText(): string {
  const colours = coloursFor('stdout')
  const table = new Table({
    head: ['kind', 'role', 'what it is', 'a spec to paste'].map((title) => colours.dim(title)),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colWidths: [null, null, 46, null],
    wordWrap: true,
  })
  for (const { kind, role, summary, example } of DISK_KINDS) {
    table.push([colours.bold(kind), role, summary, colours.cyan(example)])
  }
  const hint = colours.dim('paravane backends KIND lists its options; a wrapper is piped after what it wraps')
  return `${table.toString()}\n\n${hint}\n`
}

function kindText({ kind, role, summary, example, argument, options }: DiskKind): string {
  const colours = coloursFor('stdout')
  const rows: [string, string][] = Object.entries(options)
  if (argument !== undefined) {
    rows.unshift([
      argument.required ? argument.name.toUpperCase() : `[${argument.name.toUpperCase()}]`,
      argument.meaning,
    ])
  }
  const width = Math.max(0, ...rows.map(([name]) => name.length))
  const lines = rows.map(([name, meaning]) => `  ${colours.bold(name.padEnd(width))}  ${meaning}`)
  return [`${colours.bold(kind)} (${role}): ${summary}`, ...lines, `  ${colours.cyan(example)}`, ''].join(
    '\n',
  )
}
