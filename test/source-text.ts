import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** A source file as the architecture test reads it. */
export interface SourceFile {
  /** From the top of the repository, with forward slashes: `host/disk/file.ts`. */
  readonly path: string
  readonly text: string
}

export interface Import {
  /** As written: `../../protocol/dma.ts`, `node:fs`, `chalk`. */
  readonly name: string
  /** A file of the repository, for a relative import. */
  readonly target: string | null
}

/** Every TypeScript file below `folder`, fixtures left out. */
export function sourceFiles(folder: string): SourceFile[] {
  const from = path.join(ROOT, folder)
  if (!fs.existsSync(from)) return []
  return fs
    .readdirSync(from, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => path.relative(ROOT, path.join(entry.parentPath, entry.name)).split(path.sep).join('/'))
    .filter((file) => !file.includes('/fixtures/'))
    .sort()
    .map((file) => ({ path: file, text: fs.readFileSync(path.join(ROOT, file), 'utf8') }))
}

/** Folders at the top of the repository that hold sources. */
export function topFolders(): string[] {
  return fs
    .readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !['node_modules', 'dist', '.git'].includes(entry.name))
    .map((entry) => entry.name)
}

export function exists(file: string): boolean {
  return fs.existsSync(path.join(ROOT, file))
}

export function readText(file: string): string {
  return fs.readFileSync(path.join(ROOT, file), 'utf8')
}

const COMMENT_OR_TEXT =
  /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g

/** The code alone: comments become nothing, quoted texts become empty ones. */
export function code(text: string): string {
  return text.replace(COMMENT_OR_TEXT, (found) => (found.startsWith('/') ? ' ' : "''"))
}

/** The code with its texts, so that what is imported can be read. */
function uncommented(text: string): string {
  return text.replace(COMMENT_OR_TEXT, (found) => (found.startsWith('/') ? ' ' : found))
}

const IMPORT =
  /(?:^|[;\n])\s*(?:import|export)\s[^;'"`]*?from\s*['"]([^'"]+)['"]|(?:^|[;\n])\s*import\s*['"]([^'"]+)['"]|\bimport\s*\(\s*['"]([^'"]+)['"]/g

/** What a file imports or re-exports, types included, static or dynamic. */
export function importsOf(file: SourceFile): Import[] {
  return [...uncommented(file.text).matchAll(IMPORT)].map((match) => {
    const name = match[1] ?? match[2] ?? match[3] ?? ''
    const target = name.startsWith('.') ? path.posix.join(path.posix.dirname(file.path), name) : null
    return { name, target }
  })
}
