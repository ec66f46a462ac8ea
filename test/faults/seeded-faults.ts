import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { importsOf, readText } from '../source-text.ts'
import { deviceFaults } from './device-faults.ts'
import { driverFaults } from './driver-faults.ts'
import type { Fault } from './fault.ts'
import { patched } from './fault.ts'

const TOP = fileURLToPath(new URL('../..', import.meta.url))
export const FAULTS: readonly Fault[] = [...deviceFaults, ...driverFaults]

const BY_ID: ReadonlyMap<string, Fault> = new Map(FAULTS.map((one) => [one.id, one]))

/** What to put behind a module's path; the end is where the compiler looks for the language. */
export function under({ id }: Fault): string {
  return `?fault=${id}&.ts`
}

/** The file of a module's address from the top of the repository, and the fault it is loaded under. */
function placeOf(id: string): { readonly file: string; readonly under: Fault } | null {
  const [file = '', query] = id.replace(/&\.ts$/, '').split('?fault=')
  if (query === undefined) return null
  const under = BY_ID.get(query)
  if (under === undefined) throw new Error(`there is no seeded fault ${query}`)
  return { file: path.relative(TOP, file), under }
}

/** What a module needs when it runs, by file. */
const needs = new Map<string, readonly string[]>()
const TYPES_ONLY = /^(?:import|export) type\s[\s\S]*?from '[^']+'/gm

function needsOf(file: string): readonly string[] {
  const known = needs.get(file)
  if (known !== undefined) return known
  const imports = importsOf({ path: file, text: readText(file).replace(TYPES_ONLY, '') })
  const found = imports.flatMap(({ target }) => (target === null ? [] : [target]))
  needs.set(file, found)
  return found
}

/** Whether `file` is patched or needs, directly or not, one that is: all else is shared with the sound tree. */
function touched(file: string, under: Fault, seen = new Set<string>()): boolean {
  if (under.patches.some((patch) => patch.file === file)) return true
  if (seen.has(file)) return false
  seen.add(file)
  return needsOf(file).some((one) => touched(one, under, seen))
}

/**
 * A plugin of the test runner: `import('…/subject.ts' + under(fault))` loads that module and what it imports anew,
 * with the fault's patches applied.
 */
export function seededFaults() {
  return {
    name: 'seeded-faults',
    enforce: 'pre' as const,
    resolveId(source: string, importer: string | undefined): string | null {
      const place = importer === undefined || !source.startsWith('.') ? null : placeOf(importer)
      if (place === null) return null
      const target = path.join(path.dirname(place.file), source)
      return touched(target, place.under) ? path.join(TOP, target) + under(place.under) : null
    },
    transform(code: string, id: string): string | null {
      const place = placeOf(id)
      const patches = place?.under.patches.filter(({ file }) => file === place.file) ?? []
      return patches.length === 0 ? null : patches.reduce(patched, code)
    },
  }
}
