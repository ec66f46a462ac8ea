import { describe, expect, it } from 'vitest'
import * as protocol from '../protocol/index.ts'
import {
  code,
  exists,
  type Import,
  importsOf,
  readText,
  type SourceFile,
  sourceFiles,
  topFolders,
} from './source-text.ts'

/** Who may import whom. Each room may import itself. The drawing is in ARCHITECTURE.md. */
const ROOMS: { readonly [room: string]: readonly string[] } = {
  protocol: [],
  native: [],
  guest: ['protocol'],
  hypervisor: ['protocol', 'native'],
  host: ['protocol', 'native'],
  bench: ['protocol', 'native', 'guest', 'hypervisor', 'host'],
  test: ['protocol', 'native', 'guest', 'hypervisor', 'host', 'bench', 'bin', 'examples'],
  bin: ['protocol', 'native', 'guest', 'hypervisor', 'host', 'bench', 'test'],
  examples: [],
}

/** Rooms that have to run anywhere, in virtual time. */
const PURE_ROOMS = ['protocol', 'guest', 'hypervisor', 'host']

/** Files of pure rooms that touch the operating system or wait for it, and why each has to. */
const EDGE_FILES: { readonly [file: string]: string } = {
  'host/disk/image.ts': 'opens the file behind a disk',
  'host/disk/file.ts': 'reads and writes it synchronously',
  'host/disk/file-async.ts': 'reads and writes it through callbacks',
  'host/disk/module.ts': "imports a user's module",
  'host/disk/registry.ts': 'opening a disk may wait for a module or a file',
  'hypervisor/clock.ts': 'the outermost loop alone returns to the event loop',
}

/** Inside a room: folder, and the folders of the same room it may import besides itself and the top. */
const INNER: { readonly [folder: string]: readonly string[] } = {
  'host/disk': [],
  'guest/kernel': [],
  'guest/class': ['guest/kernel', 'guest/port'],
  'guest/port': ['guest/kernel'],
  'guest/virtio': ['guest/kernel', 'guest/port'],
  'guest/ide': ['guest/kernel', 'guest/port'],
}

const WALL_CLOCK_OR_CHANCE = [
  /\bDate\b/,
  /\bperformance\b/,
  /\bMath\.random\b/,
  /\bcrypto\b/,
  /\bset(?:Timeout|Interval|Immediate)\b/,
  /\bqueueMicrotask\b/,
  /\bnextTick\b/,
]
const WAITING = [/\basync\b/, /\bawait\b/, /\bnew Promise\b/, /\.then\(/]

const FILES = topFolders().flatMap((folder) => sourceFiles(folder))

function inRooms(rooms: readonly string[]): SourceFile[] {
  return FILES.filter((file) => rooms.includes(roomOf(file.path)))
}

function roomOf(file: string): string {
  return file.split('/')[0] ?? ''
}

/** `file: import`, for every import that `wrong` says is one. */
function offenders(
  files: readonly SourceFile[],
  wrong: (file: SourceFile, one: Import) => boolean,
): string[] {
  return files.flatMap((file) =>
    importsOf(file)
      .filter((one) => wrong(file, one))
      .map((one) => `${file.path}: ${one.name}`),
  )
}

function matches(files: readonly SourceFile[], patterns: readonly RegExp[]): string[] {
  return files.flatMap((file) => {
    const text = code(file.text)
    return patterns
      .filter((pattern) => pattern.test(text))
      .map((pattern) => `${file.path}: ${pattern.source}`)
  })
}

function innerFolder(file: string): string {
  return file.split('/').slice(0, 2).join('/')
}

describe('the import rule', () => {
  it('reads the imports it judges', () => {
    const total = FILES.reduce((count, file) => count + importsOf(file).length, 0)
    expect(total).toBeGreaterThan(300)
    const example = {
      path: 'guest/a/b.ts',
      text: "import type { X } from '../../host/x.ts'\n// import z from './z.ts'\nexport * from './y.ts'\nconst w = await import('node:fs')",
    }
    expect(importsOf(example).map((one) => one.target ?? one.name)).toEqual([
      'host/x.ts',
      'guest/a/y.ts',
      'node:fs',
    ])
  })

  it('knows every folder that holds sources', () => {
    const unknown = topFolders().filter((folder) => sourceFiles(folder).length > 0 && !(folder in ROOMS))
    expect(unknown).toEqual([])
  })

  it('lets no arrow run upward', () => {
    const wrong = offenders(FILES, (file, { target }) => {
      if (target === null || !target.includes('/')) return false
      const from = roomOf(file.path)
      const to = roomOf(target)
      return from !== to && !(ROOMS[from] ?? []).includes(to)
    })
    expect(wrong).toEqual([])
  })

  it('keeps drivers apart from the layers above them, and backends from the devices in front', () => {
    const wrong = offenders(FILES, (file, { target }) => {
      const allowed = INNER[innerFolder(file.path)]
      if (allowed === undefined || target === null) return false
      const to = innerFolder(target)
      if (roomOf(to) !== roomOf(file.path) || to.endsWith('.ts')) return false
      return to !== innerFolder(file.path) && !allowed.includes(to)
    })
    expect(wrong).toEqual([])
  })

  it('resolves every relative import to a file, with its extension', () => {
    expect(offenders(FILES, (_file, { target }) => target !== null && !exists(target))).toEqual([])
  })

  it('keeps the test runner out of what is shipped', () => {
    const shipped = FILES.filter((file) => !file.path.endsWith('.test.ts'))
    const suites = shipped.filter((file) => /^test\/(conformance|fuzz)\//.test(file.path))
    expect(offenders(suites, (_file, { name }) => name === 'vitest')).toEqual([])
    expect(
      offenders(inRooms([...PURE_ROOMS, 'bench', 'bin']), (_file, { name }) => name === 'vitest'),
    ).toEqual([])
  })
})

describe('rooms that run anywhere', () => {
  const pure = inRooms(PURE_ROOMS).filter((file) => !(file.path in EDGE_FILES))

  it('touch no module of Node but in the edge files', () => {
    expect(offenders(pure, (_file, { name }) => name.startsWith('node:'))).toEqual([])
  })

  it('depend on no package but in the edge files', () => {
    expect(
      offenders(pure, (_file, { name, target }) => target === null && !name.startsWith('node:')),
    ).toEqual([])
  })

  it('know no wall clock and no chance, edge files included', () => {
    expect(matches(inRooms(PURE_ROOMS), WALL_CLOCK_OR_CHANCE)).toEqual([])
  })

  it('wait for nothing but in the edge files', () => {
    expect(matches(pure, WAITING)).toEqual([])
  })

  it('name every edge file for a reason that still holds', () => {
    const idle = Object.keys(EDGE_FILES).filter((edge) => {
      const file = FILES.find((one) => one.path === edge)
      if (file === undefined) return true
      const touches = importsOf(file).some((one) => one.name.startsWith('node:'))
      return !touches && matches([file], WAITING).length === 0
    })
    expect(idle).toEqual([])
  })
})

describe('the hypervisor', () => {
  it('is protocol-blind', () => {
    expect(matches(inRooms(['hypervisor']), [/virt(io|q)/i, /\bblk\b/i, /\bscsi\b/i])).toEqual([])
  })
})

describe('the repository', () => {
  it('has a WIRE.md that the declarations would write again', () => {
    expect(readText('protocol/WIRE.md')).toBe(protocol.wire(protocol, protocol.REQUIREMENTS))
  })

  it.each(Object.keys(ROOMS).filter((room) => sourceFiles(room).length > 0))('tells what %s/ is', (room) => {
    expect(exists(`${room}/README.md`)).toBe(true)
  })

  it('names no file for nothing', () => {
    const empty = /(^|\/)(util|utils|common|base|helpers?|misc|types)\.ts$/
    expect(FILES.map((file) => file.path).filter((file) => empty.test(file))).toEqual([])
  })

  it('names only files that exist in its documents', () => {
    const documents = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md'].filter(exists)
    const missing = documents.flatMap((document) =>
      [
        ...readText(document).matchAll(
          /`((?:protocol|guest|host|hypervisor|bench|native|bin|test|docs|examples)\/[\w./-]*)`/g,
        ),
      ]
        .map((match) => match[1] ?? '')
        .filter((file) => !exists(file))
        .map((file) => `${document}: ${file}`),
    )
    expect(missing).toEqual([])
  })
})
