import type { DiskExtent } from './backend.ts'

/** Appends a stretch, joined to the last one when it goes on in the same kind. Nothing for no bytes. */
export function pushExtent(
  extents: DiskExtent[],
  offset: number,
  lengthBytes: number,
  kind: DiskExtent['kind'],
): void {
  if (!(lengthBytes > 0)) return
  const last = extents.at(-1)
  if (last !== undefined && last.kind === kind && last.offset + last.lengthBytes === offset) {
    extents[extents.length - 1] = { offset: last.offset, lengthBytes: last.lengthBytes + lengthBytes, kind }
  } else {
    extents.push({ offset, lengthBytes, kind })
  }
}
