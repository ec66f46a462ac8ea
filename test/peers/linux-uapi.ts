/** Asks a C compiler with Linux' own headers what protocol/virtio declares, and keeps the answers. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type AnyLayout, elementBytes, isLayout } from '../../protocol/layout.ts'
import { C_NUMBERS, C_REGISTERS, C_STRUCTS, C_TABLES } from './linux-names.ts'

export const FIXTURE = new URL('./fixtures/linux-uapi.json', import.meta.url)
const VIRTIO = new URL('../../protocol/virtio/', import.meta.url)
const HEADERS = ['virtio_config', 'virtio_ids', 'virtio_ring', 'virtio_mmio', 'virtio_blk']
/** Queue sizes for which the places that depend on one are compared. */
export const SIZES = [1, 2, 256, 32768]
/** Index triples where a wrong comparison shows: neighbours, half way round, and both sides of the wrap. */
const INDICES = [0, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff]
export const EVENT_TRIPLES = INDICES.flatMap((event) =>
  INDICES.flatMap((now) => INDICES.map((before) => [event, now, before] as const)),
)

/** A number; offset and bytes of a field; null where these headers have no such name. */
export type Answer = number | readonly [number, number] | null
export interface LinuxUapi {
  readonly package: string
  readonly values: { readonly [ours: string]: Answer }
  /** By queue size: bytes of the available and used rings with their event words. */
  readonly rings: readonly (readonly [size: number, availBytes: number, usedBytes: number])[]
  /** `vring_need_event` of each triple, one digit each. */
  readonly needEvent: string
}

/** Every export of every file of protocol/virtio: found by looking, so that a new one cannot be forgotten. */
export async function virtioExports(): Promise<ReadonlyMap<string, unknown>> {
  const found = new Map<string, unknown>()
  for (const file of readdirSync(VIRTIO).filter((name) => name.endsWith('.ts'))) {
    const exports: object = await import(new URL(file, VIRTIO).href)
    for (const [name, value] of Object.entries(exports)) found.set(name, value)
  }
  return found
}

/** Every declaration with its value: `BlkType.IN` 0, `BlkConfig.capacity` [0, 8], `VirtqUsed.ring[]` [4, 8]. */
export function declarations(exports: ReadonlyMap<string, unknown>): ReadonlyMap<string, unknown> {
  const found = new Map<string, unknown>()
  const named = new Set(exports.values())
  for (const [name, value] of exports) {
    if (typeof value === 'function') continue
    if (typeof value !== 'object' || value === null || Array.isArray(value)) found.set(name, value)
    else if (isLayout(value)) declareLayout(name, value, named, found)
    else for (const [key, entry] of Object.entries(value)) found.set(`${name}.${key}`, numberOf(entry))
  }
  return found
}

function declareLayout(
  name: string,
  layout: AnyLayout,
  named: ReadonlySet<unknown>,
  into: Map<string, unknown>,
): void {
  for (const field of layout.$fields) {
    const { spec } = field
    if (spec.kind === 'tail') into.set(`${name}.${field.name}[]`, [field.offset, elementBytes(spec.element)])
    else into.set(`${name}.${field.name}`, [field.offset, field.lengthBytes])
    // A vocabulary with no export of its own is declared here or nowhere.
    for (const words of [spec.names, spec.bits]) {
      if (words === undefined || named.has(words)) continue
      for (const [word, value] of Object.entries(words)) into.set(`${name}.${field.name}.${word}`, value)
    }
  }
}

function numberOf(entry: unknown): unknown {
  return typeof entry === 'object' && entry !== null && 'bit' in entry ? entry.bit : entry
}

/** What is missing for `askLinux`, or null. */
export function missingCompiler(): string | null {
  if (!existsSync('/usr/include/linux/virtio_blk.h')) return 'linux-libc-dev'
  try {
    execFileSync('cc', ['--version'], { stdio: 'ignore' })
    return null
  } catch {
    return 'cc'
  }
}

/** Writes a C program, compiles it and reads its answers. Nothing of it stays. */
export function askLinux(names: Iterable<string>): LinuxUapi {
  const folder = mkdtempSync(path.join(tmpdir(), 'paravane-uapi-'))
  try {
    const source = path.join(folder, 'ask.c')
    const program = path.join(folder, 'ask')
    writeFileSync(source, cSource(names))
    execFileSync('cc', ['-std=gnu11', '-Wall', '-Werror', '-o', program, source], { stdio: 'pipe' })
    const answers = JSON.parse(execFileSync(program, { encoding: 'utf8' })) as Omit<LinuxUapi, 'package'>
    return { package: packageVersion(), ...answers }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function packageVersion(): string {
  try {
    const format = `--showformat=\${Package} \${Version}`
    return execFileSync('dpkg-query', ['-W', format, 'linux-libc-dev'], { encoding: 'utf8' })
  } catch {
    return 'unknown'
  }
}

export function recordedUapi(): LinuxUapi {
  return JSON.parse(readFileSync(FIXTURE, 'utf8')) as LinuxUapi
}

export function fixtureText(uapi: LinuxUapi): string {
  const lines = (entries: readonly string[]) => entries.map((line) => `    ${line}`).join(',\n')
  const values = Object.entries(uapi.values).map(
    ([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`,
  )
  return `{
  "package": ${JSON.stringify(uapi.package)},
  "values": {
${lines(values)}
  },
  "rings": [
${lines(uapi.rings.map((ring) => JSON.stringify(ring)))}
  ],
  "needEvent": "${uapi.needEvent}"
}
`
}

/** One statement that prints `"name": value`; `#ifdef` leaves out what older headers lack. */
function question(name: string): string | null {
  const dot = name.indexOf('.')
  const owner = dot < 0 ? name : name.slice(0, dot)
  const member = name.slice(dot + 1)
  const struct = C_STRUCTS[owner]
  if (struct !== undefined) {
    const field = struct.fields[member] ?? member.replace('[]', '')
    const bytes = `sizeof(((${struct.c} *)0)->${field}${member.endsWith('[]') ? '[0]' : ''})`
    return `field("${name}", offsetof(${struct.c}, ${field}), ${bytes});`
  }
  const table = C_TABLES[owner]
  const register = C_REGISTERS[owner]?.[member]
  const macro =
    table === undefined ? (register ?? C_NUMBERS[name]) : (table.names?.[member] ?? table.prefix + member)
  if (macro === undefined) return null
  const print =
    register === undefined ? `number("${name}", ${macro});` : `field("${name}", ${macro}, sizeof(__le32));`
  return `\n#ifdef ${macro}\n${print}\n#else\nabsent("${name}");\n#endif\n`
}

/** Fields that `names` asks for have to exist: a structure has no `#ifdef`. */
function cSource(names: Iterable<string>): string {
  const questions = [...names].map(question).filter((one) => one !== null)
  const sizes = Object.entries(C_STRUCTS).map(([ours, { c }]) => `number("${ours}", sizeof(${c}));`)
  return `#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
${HEADERS.map((header) => `#include <linux/${header}.h>`).join('\n')}
static const char *comma = "";
static void number(const char *name, unsigned long value) { printf("%s\\"%s\\":%lu", comma, name, value); comma = ","; }
static void field(const char *name, unsigned long at, unsigned long bytes) { printf("%s\\"%s\\":[%lu,%lu]", comma, name, at, bytes); comma = ","; }
__attribute__((unused)) static void absent(const char *name) { printf("%s\\"%s\\":null", comma, name); comma = ","; }
static void ring(unsigned int size) {
  static char memory[1 << 20] __attribute__((aligned(4096)));
  struct vring vr;
  vring_init(&vr, size, memory, 4096);
  printf("%s[%u,%lu,%lu]", comma, size,
    (unsigned long)((char *)(&vring_used_event(&vr) + 1) - (char *)vr.avail),
    (unsigned long)((char *)(&vring_avail_event(&vr) + 1) - (char *)vr.used));
  comma = ",";
}
int main(void) {
  printf("{\\"values\\":{");
  ${sizes.join('\n  ')}
  ${questions.join('\n  ')}
  printf("},\\"rings\\":[");
  comma = "";
  ${SIZES.map((size) => `ring(${size});`).join(' ')}
  printf("],\\"needEvent\\":\\"");
  static const unsigned short of[] = {${INDICES.join(', ')}};
  for (int e = 0; e < ${INDICES.length}; e++)
    for (int n = 0; n < ${INDICES.length}; n++)
      for (int b = 0; b < ${INDICES.length}; b++) putchar('0' + (vring_need_event(of[e], of[n], of[b]) != 0));
  printf("\\"}\\n");
  return 0;
}
`
}
