import { createRequire } from 'node:module'
import type { LibraryHandle } from 'koffi'

/** What is used of koffi. */
export interface Ffi {
  load(library: string | null): LibraryHandle
  /** The bytes at an address, unowned: whoever made the address decides when they end. */
  view(address: bigint, lengthBytes: number): ArrayBuffer
  errno(): number
  proto(definition: string): unknown
  pointer(to: unknown): unknown
  register(callback: (...values: never[]) => void, pointer: unknown): bigint
}

let found: Ffi | string | null = null

/** Why the operating system cannot be called from here, as one line; null when it can. */
export function nativeAbsent(): string | null {
  const ffi = look()
  return typeof ffi === 'string' ? ffi : null
}

/** @throws when `nativeAbsent` says why not. */
export function ffi(): Ffi {
  const ffi = look()
  if (typeof ffi === 'string') throw new Error(ffi)
  return ffi
}

function look(): Ffi | string {
  found ??= find()
  return found
}

function find(): Ffi | string {
  const { platform, arch } = process
  if (platform !== 'linux') return `shared memory and descriptors need Linux, and this is ${platform}`
  // Their numbers and layouts are the same; others have their own.
  if (arch !== 'x64' && arch !== 'arm64')
    return `shared memory and descriptors know x64 and arm64, not ${arch}`
  try {
    return createRequire(import.meta.url)('koffi') as Ffi
  } catch (problem) {
    const why = problem instanceof Error ? (problem.message.split('\n')[0] ?? '') : String(problem)
    return `shared memory and descriptors need the optional package koffi: ${why}`
  }
}
