import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'
import type { DiskModuleKind, DiskOptions, DiskSourceKind, DiskWrapperKind, Opened } from './backend.ts'
import { errnoOf, meaningOf } from './errno.ts'
import { oneLine, quote } from './quote.ts'

const SCRIPTS = ['.js', '.mjs', '.cjs']
const TYPED = ['.ts', '.mts', '.cts']
/** Node's own reasons for refusing TypeScript that tsx takes. */
const TYPED_REFUSALS = [
  'ERR_UNKNOWN_FILE_EXTENSION',
  'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX',
  'ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING',
  'ERR_MODULE_NOT_FOUND',
]

export const MODULE: DiskModuleKind = {
  role: 'module',
  kind: 'module',
  summary: 'a backend or wrapper of your own: the default export of a JavaScript or TypeScript module',
  example: 'module:./pattern-disk.ts,sectors=2048',
  argument: {
    name: 'path',
    meaning: 'a module, relative to the current directory',
    required: true,
  },
  options: {},
  async load(options: DiskOptions): Promise<Opened<DiskSourceKind | DiskWrapperKind>> {
    const written = options.argument ?? ''
    const failed = (why: string): Opened<never> => ({
      ok: false,
      error: `module: cannot load ${quote(written)}: ${why}`,
    })
    const extension = path.extname(written)
    const typed = TYPED.includes(extension)
    if (!typed && !SCRIPTS.includes(extension)) {
      return failed(`its name ends in none of ${[...TYPED, ...SCRIPTS].join(' ')}`)
    }
    const file = path.resolve(written)
    try {
      if (!fs.statSync(file).isFile()) return failed('not a file')
    } catch (error) {
      return failed(meaningOf(error))
    }
    let loaded: unknown
    try {
      loaded = typed ? await importTyped(file) : await import(/* @vite-ignore */ pathToFileURL(file).href)
    } catch (error) {
      return failed(oneLine(error instanceof Error ? error.message : String(error)))
    }
    const kind = defaultExport(loaded)
    const wrong = kindInvalid(kind)
    return wrong === null ? { ok: true, value: kind as DiskSourceKind | DiskWrapperKind } : failed(wrong)
  },
}

/** Node's own type stripping where there is one: what tsx compiles makes closures 20 times as dear. */
async function importTyped(file: string): Promise<unknown> {
  if ('typescript' in process.features && process.features.typescript) {
    try {
      return await import(/* @vite-ignore */ pathToFileURL(file).href)
    } catch (error) {
      if (!TYPED_REFUSALS.includes(errnoOf(error))) throw error
    }
  }
  const { tsImport } = await import('tsx/esm/api')
  return tsImport(pathToFileURL(file).href, import.meta.url)
}

/** What `export default` gave. Compilers that make CommonJS of a module wrap it once more. */
function defaultExport(loaded: unknown): unknown {
  let value = property(loaded, 'default')
  if (property(value, 'role') === undefined && property(value, 'default') !== undefined) {
    value = property(value, 'default')
  }
  return value
}

/** Why a value cannot stand in the registry, or null. */
function kindInvalid(kind: unknown): string | null {
  if (kind === undefined) return 'it has no default export'
  if (typeof kind !== 'object' || kind === null) return 'its default export is not an object'
  const role = property(kind, 'role')
  if (role !== 'source' && role !== 'wrapper')
    return `its default export's role is neither "source" nor "wrapper"`
  const name = property(kind, 'kind')
  if (typeof name !== 'string' || !/^[a-z][a-z0-9-]*$/.test(name)) {
    return `its default export's kind is not a name such as "my-disk"`
  }
  if (typeof property(kind, 'open') !== 'function') return 'its default export has no function open'
  const options = property(kind, 'options')
  if (typeof options !== 'object' || options === null) return 'its default export has no object options'
  return null
}

function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
