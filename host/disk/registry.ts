import type { HostPlatform } from '../../protocol/platform.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import type { DiskBackend, DiskKind, DiskSourceKind, DiskWrapperKind, Opened } from './backend.ts'
import { VHOST_USER } from './daemon.ts'
import { DELAY } from './delay.ts'
import { factsInvalid } from './facts.ts'
import { FILE } from './file.ts'
import { FILE_ASYNC } from './file-async.ts'
import { MEMORY } from './memory.ts'
import { MODULE } from './module.ts'
import { OVERLAY } from './overlay.ts'
import { didYouMean, oneLine, quote } from './quote.ts'
import { type DiskJson, type DiskLayer, type DiskSpec, parseSpec, specFromJson } from './spec.ts'
import { TracedDisk } from './traced.ts'

/** Every kind of disk, a line each. Its conformance suite runs over this list. */
export const DISK_KINDS: readonly DiskKind[] = [MEMORY, FILE, FILE_ASYNC, OVERLAY, DELAY, MODULE, VHOST_USER]

/** A kind by its name. */
export function diskKind(name: string): DiskKind | undefined {
  return DISK_KINDS.find((kind) => kind.kind === name)
}

/**
 * A spec checked against the registry, without opening anything: kinds exist, a source stands first and only
 * there, options and arguments are ones that their kinds take. What it returns is canonical: an argument given
 * by its name (as JSON does) is the argument, a bare flag of a kind without argument is an option.
 *
 * @param spec the text of a spec, or the same as plain data.
 */
export function readDiskSpec(spec: string | DiskJson): Opened<DiskSpec> {
  const parsed = typeof spec === 'string' ? parseSpec(spec) : specFromJson(spec)
  if (!parsed.ok) return parsed
  const layers: DiskLayer[] = []
  for (const written of parsed.value.layers) {
    const kind = diskKind(written.kind)
    if (kind === undefined) return { ok: false, error: unknownKind(written) }
    const layer = settleArgument(written, kind)
    const wrong = wrongPlace(kind, layers.at(-1)) ?? wrongOptions(layer, kind)
    if (wrong !== null) return { ok: false, error: wrong }
    layers.push(layer)
  }
  return { ok: true, value: { layers } }
}

/**
 * Builds a stack of layers, the source first. Each has its own path (`disk0/delay`) and random stream. When a
 * layer cannot be opened, those beneath it are closed again.
 *
 * @param platform whose path and random stream are the disk's (`disk0`).
 */
export async function openDisk(
  spec: string | DiskJson,
  platform: HostPlatform,
): Promise<Opened<DiskBackend>> {
  const read = readDiskSpec(spec)
  if (!read.ok) return read
  const plan = await loadKinds(read.value)
  if (!plan.ok) return plan
  const names = new Map<string, number>()
  let backend: DiskBackend | null = null
  for (const { kind, layer } of plan.value) {
    const own = platformOf(kind.kind, names, platform)
    const opened = await openLayer(kind, layer, own, backend)
    if (!opened.ok) {
      const below: DiskBackend | null = backend
      if (below !== null) await new Promise<void>((resolve) => below.close(resolve))
      return opened
    }
    backend = own.trace === NO_TRACE ? opened.value : new TracedDisk(opened.value, own.trace, own.path)
  }
  if (backend === null) throw new Error('a disk spec without layers passed the checks')
  return { ok: true, value: backend }
}

interface PlannedLayer {
  readonly kind: DiskSourceKind | DiskWrapperKind
  readonly layer: DiskLayer
}

async function loadKinds(spec: DiskSpec): Promise<Opened<readonly PlannedLayer[]>> {
  const plan: PlannedLayer[] = []
  for (const layer of spec.layers) {
    let kind = diskKind(layer.kind)
    if (kind === undefined) return { ok: false, error: unknownKind(layer) }
    if (kind.role === 'module') {
      const loaded = await kind.load(layer)
      if (!loaded.ok) return loaded
      kind = loaded.value
      const options = { ...layer, argument: undefined }
      const wrong = wrongOptions(options, kind)
      if (wrong !== null) return { ok: false, error: wrong }
    }
    if (kind.role === 'device') {
      const error = `${kind.kind}: is a device for a guest to drive, not a disk to open; name the disk its daemon serves`
      return { ok: false, error }
    }
    const below = plan.at(-1)
    const wrong = wrongPlace(kind, below?.layer)
    if (wrong !== null) return { ok: false, error: wrong }
    plan.push({ kind, layer })
  }
  return { ok: true, value: plan }
}

async function openLayer(
  kind: DiskSourceKind | DiskWrapperKind,
  layer: DiskLayer,
  platform: HostPlatform,
  below: DiskBackend | null,
): Promise<Opened<DiskBackend>> {
  try {
    let opened: Opened<DiskBackend>
    if (kind.role === 'source') opened = await kind.open(layer, platform)
    else if (below !== null) opened = await kind.open(layer, platform, below)
    else return { ok: false, error: `${kind.kind}: needs a disk beneath it` }
    if (!opened.ok) return { ok: false, error: oneLine(opened.error) }
    const invalid = backendInvalid(opened.value)
    return invalid === null ? opened : { ok: false, error: `${kind.kind}: ${invalid}` }
  } catch (error) {
    return {
      ok: false,
      error: oneLine(`${kind.kind}: ${error instanceof Error ? error.message : String(error)}`),
    }
  }
}

/** Why what a module opened is no backend, or null: its author's compiler may never have seen the contract. */
function backendInvalid(backend: DiskBackend): string | null {
  for (const name of ['submit', 'watch', 'close'] as const) {
    if (typeof backend[name] !== 'function') return `what it opened has no function ${name}`
  }
  if (typeof backend.facts !== 'object' || backend.facts === null) return 'what it opened has no object facts'
  return factsInvalid(backend.facts)
}

/** The second `delay` of a stack is `disk0/delay2`: paths name one part each. */
function platformOf(kind: string, names: Map<string, number>, disk: HostPlatform): HostPlatform {
  const count = (names.get(kind) ?? 0) + 1
  names.set(kind, count)
  const name = count === 1 ? kind : `${kind}${count}`
  return {
    clock: disk.clock,
    random: disk.random.stream(name),
    trace: disk.trace,
    path: `${disk.path}/${name}`,
  }
}

function settleArgument(layer: DiskLayer, kind: DiskKind): DiskLayer {
  const values = new Map(layer.values)
  const name = kind.argument?.name
  if (name !== undefined && layer.argument === undefined) {
    const argument = values.get(name)
    values.delete(name)
    return { kind: layer.kind, argument: argument === '' ? undefined : argument, values }
  }
  if (name === undefined && layer.argument !== undefined && !values.has(layer.argument)) {
    if (Object.hasOwn(kind.options, layer.argument)) {
      return {
        kind: layer.kind,
        argument: undefined,
        values: new Map([[layer.argument, 'yes'], ...values]),
      }
    }
  }
  return layer
}

function wrongPlace(kind: DiskKind, below: DiskLayer | undefined): string | null {
  const device = below === undefined ? undefined : diskKind(below.kind)
  if (device?.role === 'device') {
    return `${kind.kind}: cannot be piped after ${device.kind}, which is a device and has its disk elsewhere`
  }
  if (kind.role === 'device' && below !== undefined) {
    return `${kind.kind}: is a device; it cannot be piped after ${below.kind}`
  }
  if (kind.role === 'wrapper' && below === undefined) {
    return `${kind.kind}: a wrapper needs a disk beneath it, such as "memory | ${kind.kind}"`
  }
  if (kind.role === 'source' && below !== undefined) {
    return `${kind.kind}: a source of data stands first; it cannot be piped after ${below.kind}`
  }
  return null
}

function wrongOptions(layer: DiskLayer, kind: DiskKind): string | null {
  const { argument } = kind
  if (argument === undefined && layer.argument !== undefined) {
    return `${kind.kind}: takes no argument, but has ${quote(layer.argument)}; ${takes(kind)}`
  }
  if (argument?.required === true && layer.argument === undefined) {
    return `${kind.kind}: needs its ${argument.name} (${argument.meaning}), such as ${quote(kind.example)}`
  }
  // A module's own options are known once it is loaded.
  if (kind.role === 'module') return null
  for (const key of layer.values.keys()) {
    if (key === argument?.name) return `${kind.kind}: has its ${key} twice, bare and as ${key}=`
    if (!Object.hasOwn(kind.options, key)) {
      return `${kind.kind}: no option ${quote(key)}${didYouMean(key, Object.keys(kind.options))}; ${takes(kind)}`
    }
  }
  return null
}

function takes(kind: DiskKind): string {
  const keys = Object.keys(kind.options)
  return keys.length === 0 ? 'it takes no options' : `its options are ${keys.join(', ')}`
}

function unknownKind(layer: DiskLayer): string {
  const names = DISK_KINDS.map((kind) => kind.kind)
  return `disk spec: no kind ${quote(layer.kind)}${didYouMean(layer.kind, names)}; kinds are ${names.join(', ')}`
}
