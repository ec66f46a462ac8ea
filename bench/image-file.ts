import fs from 'node:fs'
import { readDiskSpec } from '../host/disk/registry.ts'

/** The file at the bottom of a disk. */
export interface ImageFile {
  readonly path: string
  /** The same for every name of one file. */
  readonly identity: string
  /** Null for a device, whose length no directory entry tells. */
  readonly lengthBytes: number | null
}

/** What identifies an existing file, whatever it is called; null when there is none. */
export function fileIdentity(path: string): string | null {
  try {
    const { dev, ino } = fs.statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return null
  }
}

/** The image a spec reads, by the kinds that read one; null for all others, and when it is not there. */
export function imageFileOf(spec: string): ImageFile | null {
  const read = readDiskSpec(spec)
  const source = read.ok ? read.value.layers[0] : undefined
  if (source === undefined || !['file', 'file-async'].includes(source.kind)) return null
  const path = source.argument ?? ''
  const identity = fileIdentity(path)
  if (identity === null) return null
  const stat = fs.statSync(path)
  return { path, identity, lengthBytes: stat.isFile() ? stat.size : null }
}
