import type { DiskBackend } from '../host/disk/backend.ts'
import { factsInvalid } from '../host/disk/facts.ts'
import { OverlayDisk } from '../host/disk/overlay.ts'
import { openDisk, readDiskSpec } from '../host/disk/registry.ts'
import { TracedDisk } from '../host/disk/traced.ts'
import type { VirtualClock } from '../hypervisor/clock.ts'
import type { HostPlatform } from '../protocol/platform.ts'
import type { Trace } from '../protocol/trace.ts'
import { ContentModel } from './content-model.ts'
import { ContentTracedDisk } from './content-traced.ts'
import { DaemonDisk, daemonOf, type OpenedDaemon, openDaemon } from './daemon-disk.ts'
import { BadDescription, type CheckedDisk } from './description.ts'
import type { DriveFacts } from './drive-facts.ts'
import { FaultDisk } from './fault-disk.ts'
import { imageFileOf } from './image-file.ts'
import { ModuleGuard } from './module-guard.ts'
import { ProblemList } from './problem.ts'
import type { MachineDisk } from './windows-machine.ts'

/** What stands behind a disk, from what the spec names up to what the device model uses. */
export interface OpenedDisk {
  readonly name: string
  readonly spec: string
  readonly write: boolean
  /** What the spec names; null where a daemon has it, and nobody else. */
  readonly source: DiskBackend | null
  /** The daemon that has the disk; null where the disk is here. */
  readonly daemon: OpenedDaemon | null
  /** What the device stands on: the source, or an overlay over it, with faults on demand. */
  readonly backend: FaultDisk
  readonly problems: ProblemList
  /** What was written to the disk since the bench was made, by whomever. */
  readonly model: ContentModel
  /** Bytes of the disk that its image file does not have. */
  readonly paddedBytes: number
}

/** One disk of a bench, all the way: backend, device model in the machine, drive in the guest. */
export interface BenchDisk extends OpenedDisk {
  readonly machine: MachineDisk
  /** N of `\\.\PhysicalDriveN`; null: the guest has none. */
  readonly drive: number | null
  /** What the guest says of it; null without a drive. */
  readonly facts: DriveFacts | null
}

/**
 * Opens what stands behind a disk.
 *
 * @throws BadDescription when it cannot be opened, in the backend's own line.
 */
export async function openBenchDisk(
  disk: CheckedDisk,
  platform: HostPlatform,
  clock: VirtualClock,
): Promise<OpenedDisk> {
  const { spec, write } = disk
  const { path, trace } = platform
  const place = daemonOf(spec)
  if (typeof place === 'string') throw new BadDescription(`${path}: ${place}`)
  const problems = new ProblemList(path)
  if (place !== null) {
    const told = (line: string) => problems.add('daemon', null, line)
    const daemon = await openDaemon(place, platform, clock, told)
    if (typeof daemon === 'string') throw new BadDescription(`${path}: ${daemon}`)
    return await daemonDisk(disk, daemon, platform, problems)
  }
  const opened = await openDisk(spec, platform)
  if (!opened.ok) throw new BadDescription(`${path}: ${opened.error}`)
  let source = opened.value
  if (source.facts.lengthBytes === 0 || !source.facts.medium) {
    const empty = source
    await new Promise<void>((resolve) => empty.close(resolve))
    throw new BadDescription(`${path}: ${JSON.stringify(spec)} is empty: there is nothing to read`)
  }
  if (hasModule(spec)) {
    source = new ModuleGuard(source, (error) => {
      problems.add('module-threw', null, `the module threw ${lineOf(error)}`)
    })
  }
  const written = write ? source : overlayOver(source, trace, `${path}/changes`)
  const told = trace.on ? new ContentTracedDisk(written, trace, path) : written
  const ownBytes = imageFileOf(spec)?.lengthBytes ?? null
  return {
    name: path,
    spec,
    write,
    source,
    daemon: null,
    backend: new FaultDisk(told, trace, path),
    problems,
    model: new ContentModel(source.facts.blockBytes),
    paddedBytes: ownBytes === null ? 0 : Math.max(0, source.facts.lengthBytes - ownBytes),
  }
}

/** The same for a disk that a daemon has. */
async function daemonDisk(
  { spec, write }: CheckedDisk,
  daemon: OpenedDaemon,
  { path, trace }: HostPlatform,
  problems: ProblemList,
): Promise<OpenedDisk> {
  const { facts } = daemon
  const invalid = facts.lengthBytes === 0 ? 'it is empty: there is nothing to read' : factsInvalid(facts)
  if (invalid !== null) {
    await new Promise<void>((resolve) => daemon.close(resolve))
    throw new BadDescription(`${path}: ${JSON.stringify(spec)} cannot be used: ${invalid}`)
  }
  return {
    name: path,
    spec,
    write,
    source: null,
    daemon,
    backend: new FaultDisk(new DaemonDisk(daemon), trace, path),
    problems,
    model: new ContentModel(facts.blockBytes),
    paddedBytes: 0,
  }
}

/** Keeps changes in memory, and tells a trace that is on what it is asked, as every layer of a spec does. */
function overlayOver(source: DiskBackend, trace: Trace, path: string): DiskBackend {
  const overlay = new OverlayDisk(source)
  return trace.on ? new TracedDisk(overlay, trace, path) : overlay
}

function hasModule(spec: string): boolean {
  const read = readDiskSpec(spec)
  return read.ok && read.value.layers.some((layer) => layer.kind === 'module')
}

function lineOf(error: unknown): string {
  return String(error).replace(/\s+/g, ' ').trim()
}
