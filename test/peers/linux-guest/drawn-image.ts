import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { seededRandom } from '../../../bench/random.ts'

export const IMAGE_BYTES = 8 * 2 ** 20

/** An image whose every word was drawn, so that no part of it looks like another. */
export function drawnImage(folder: string, name: string, seed: number): string {
  const words = new Uint32Array(IMAGE_BYTES / 4)
  const random = seededRandom(seed)
  for (let i = 0; i < words.length; i++) words[i] = random.next32()
  const file = path.join(folder, name)
  writeFileSync(file, words)
  return file
}

/** sha256 of a file. */
export function sumOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}
