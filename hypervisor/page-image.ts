import { PAGE_BYTES } from '../protocol/memory.ts'
import type { Plain } from '../protocol/platform.ts'

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** Memory as plain data: the pages that are not zero, in hexadecimal, by page number. */
export function savePages(bytes: Uint8Array<ArrayBuffer>): Plain {
  const pages: { [page: string]: string } = {}
  for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
    const page = bytes.subarray(at, at + PAGE_BYTES)
    if (!isZero(page)) pages[String(at / PAGE_BYTES)] = hexOf(page)
  }
  return { lengthBytes: bytes.length, pages }
}

/** Why `saved` is no image of memory of this length, or null. */
export function pagesInvalid(bytes: Uint8Array<ArrayBuffer>, saved: Plain | undefined): string | null {
  if (typeof saved !== 'object' || saved === null) return 'memory state is not an object'
  const { lengthBytes, pages } = saved as Record<string, Plain | undefined>
  if (lengthBytes !== bytes.length)
    return `memory state has ${String(lengthBytes)} bytes, not ${bytes.length}`
  if (typeof pages !== 'object' || pages === null || Array.isArray(pages))
    return 'memory state: pages are no object'
  for (const [page, text] of Object.entries(pages as Record<string, Plain | undefined>)) {
    if (!/^\d+$/.test(page) || !(Number(page) * PAGE_BYTES < bytes.length))
      return `memory state: there is no page ${page}`
    if (typeof text !== 'string' || text.length !== PAGE_BYTES * 2 || !/^[0-9a-f]*$/.test(text)) {
      return `memory state: page ${page} is not ${PAGE_BYTES} bytes in hexadecimal`
    }
  }
  return null
}

/** After `pagesInvalid` has found nothing. */
export function loadPages(bytes: Uint8Array<ArrayBuffer>, saved: Plain | undefined): void {
  const { pages } = saved as { readonly pages: { readonly [page: string]: string } }
  bytes.fill(0)
  for (const [page, text] of Object.entries(pages)) {
    const at = Number(page) * PAGE_BYTES
    for (let index = 0; index < PAGE_BYTES; index++) {
      bytes[at + index] = Number.parseInt(text.slice(index * 2, index * 2 + 2), 16)
    }
  }
}

function isZero(page: Uint8Array<ArrayBuffer>): boolean {
  // Bit for bit: -0 and NaN are not zero, and a denormal is a number.
  const words = new Float64Array(page.buffer, page.byteOffset, page.length / 8)
  return words.every((word) => Object.is(word, 0))
}

function hexOf(page: Uint8Array<ArrayBuffer>): string {
  let text = ''
  for (const byte of page) text += HEX[byte] as string
  return text
}
