import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { deviceFaults } from './device-faults.ts'
import { driverFaults } from './driver-faults.ts'
import type { Fault } from './fault.ts'
import { patched } from './fault.ts'

const TOP = fileURLToPath(new URL('../..', import.meta.url))
/** Loaded anew under a fault, with the folders of its patches; everything else is shared with the sound tree. */
const ALWAYS_ANEW = ['host/virtio', 'guest/virtio', 'test/host', 'test/guest']

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
      const folder = path.dirname(target)
      const anew =
        ALWAYS_ANEW.includes(folder) || place.under.patches.some(({ file }) => path.dirname(file) === folder)
      return anew ? path.join(TOP, target) + under(place.under) : null
    },
    transform(code: string, id: string): string | null {
      const place = placeOf(id)
      const patches = place?.under.patches.filter(({ file }) => file === place.file) ?? []
      return patches.length === 0 ? null : patches.reduce(patched, code)
    },
  }
}
