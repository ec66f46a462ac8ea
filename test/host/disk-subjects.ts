import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { HostPlatform } from '../../protocol/platform.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { type DiskSubject, noise, specSubject } from '../conformance/disk-backend.ts'

/** A directory for this test file's images, and its end. */
export function scratch(): { readonly directory: string; remove(): void } {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-disk-'))
  return { directory, remove: () => fs.rmSync(directory, { recursive: true, force: true }) }
}

export function platformAt(clock: VirtualClock, diskPath = 'disk0'): HostPlatform {
  return { clock, random: seededRandom(1).stream(diskPath), trace: NO_TRACE, path: diskPath }
}

/** Opens a spec or throws its error. */
export async function opened(spec: string, clock = new VirtualClock()): Promise<DiskBackend> {
  const result = await openDisk(spec, platformAt(clock))
  if (!result.ok) throw new Error(result.error)
  return result.value
}

/** A path as a spec's argument: a temporary directory may have any name. */
export function escapePath(file: string): string {
  return file.replace(/[\\,|= ]/g, '\\$&')
}

/** A disk by its spec, in which `IMAGE` stands for a fresh image file. */
export function subjectOf(name: string, spec: string, freshImage: () => string): DiskSubject {
  if (!spec.includes('IMAGE')) return specSubject(spec, name)
  let image = ''
  const next = () => {
    fs.rmSync(image, { force: true })
    image = freshImage()
    return spec.replace('IMAGE', () => escapePath(image))
  }
  return { ...specSubject(next, name), cut: (lengthBytes) => fs.truncateSync(image, lengthBytes) }
}

const CONTENT = noise(262_144, 99)

/** Makes image files of one length, each new: data at first, then a hole. */
export function imageMaker(directory: string, name: string, lengthBytes: number): () => string {
  let made = 0
  return () => {
    made += 1
    const file = path.join(directory, `${name}-${made}.img`)
    fs.writeFileSync(file, CONTENT.subarray(0, Math.min(CONTENT.length, lengthBytes)))
    fs.truncateSync(file, lengthBytes)
    return file
  }
}
