import fs from 'node:fs'

export const PAGE_BYTES = 4096
const CHUNK_BYTES = 1_048_576

/** `into` becomes the content of the file from page `first` on: each page begins with its own number. */
export function numberPages(into: Uint8Array<ArrayBuffer>, first: number): void {
  const view = new DataView(into.buffer, into.byteOffset, into.length)
  for (let at = 0; at < into.length; at += PAGE_BYTES) view.setUint32(at, first + at / PAGE_BYTES, true)
}

/**
 * Writes a file without holes, which also leaves it in the page cache: reading it measures calls and copies,
 * not a disk. The page numbers let every candidate see that it read what it was asked for.
 *
 * @param lengthBytes a multiple of 1 MiB.
 * @param atOnceBytes of each write, a power of two up to 1 MiB: how large the pieces are that the page cache keeps it
 *   in, which ext4 walks through for every write to a part of one.
 */
export function writeNumberedFile(path: string, lengthBytes: number, atOnceBytes = CHUNK_BYTES): void {
  const chunk = new Uint8Array(atOnceBytes).fill(0x5a)
  const fd = fs.openSync(path, 'wx')
  try {
    for (let offset = 0; offset < lengthBytes; offset += chunk.length) {
      numberPages(chunk, offset / PAGE_BYTES)
      let done = 0
      while (done < chunk.length) done += fs.writeSync(fd, chunk, done, chunk.length - done, offset + done)
    }
  } finally {
    fs.closeSync(fd)
  }
}

/** Reads all of a file, so that what follows finds it in the page cache even where memory is short. */
export function readThrough(path: string): void {
  const chunk = new Uint8Array(CHUNK_BYTES)
  const fd = fs.openSync(path, 'r')
  try {
    while (fs.readSync(fd, chunk, 0, chunk.length, null) > 0);
  } finally {
    fs.closeSync(fd)
  }
}
