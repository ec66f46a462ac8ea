import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { LIST_ENTRY } from './layout.ts'

/**
 * Doubly linked lists inside records (InitializeListHead and its family). `head` and `entry` are addresses, 8-aligned
 * as every LIST_ENTRY is. One that is not RAM, given or found in a link, is what a wild pointer is on Windows: a page
 * fault.
 */

const FLINK = LIST_ENTRY.flink >>> 2
const BLINK = LIST_ENTRY.blink >>> 2

/** Where a list's head or entry lies in words. */
function wordOf(words: Uint32Array, at: number): number {
  if (!(at >= 0 && at < words.length * 4)) keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at)
  return at >>> 2
}

/** The pointer at a word. */
function follow(words: Uint32Array, word: number): number {
  const at = words[word] as number
  if (words[word + 1] !== 0 || !(at >>> 2 < words.length)) {
    keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at)
  }
  return at
}

/** Kernel addresses have no upper half. */
function link(words: Uint32Array, word: number, to: number): void {
  words[word] = to
  words[word + 1] = 0
}

export function initializeList({ words }: KernelMemory, head: number): void {
  const word = wordOf(words, head)
  link(words, word + FLINK, head)
  link(words, word + BLINK, head)
}

/** Also true of an entry that is in no list, once initialised. */
export function listIsEmpty({ words }: KernelMemory, head: number): boolean {
  return words[wordOf(words, head) + FLINK] === head
}

export function insertTail({ words }: KernelMemory, head: number, entry: number): void {
  insertBetween(words, follow(words, wordOf(words, head) + BLINK), entry, head)
}

export function insertHead({ words }: KernelMemory, head: number, entry: number): void {
  insertBetween(words, head, entry, follow(words, wordOf(words, head) + FLINK))
}

function insertBetween(words: Uint32Array, before: number, entry: number, after: number): void {
  const word = wordOf(words, entry)
  link(words, word + FLINK, after)
  link(words, word + BLINK, before)
  link(words, (before >>> 2) + FLINK, entry)
  link(words, (after >>> 2) + BLINK, entry)
}

/** Puts `entry` in front of `next`, which is an entry or the head. */
export function insertBefore({ words }: KernelMemory, next: number, entry: number): void {
  insertBetween(words, follow(words, wordOf(words, next) + BLINK), entry, next)
}

/** Takes the entry out and leaves it pointing at itself, so that taking it out again does nothing. */
export function removeEntry({ words }: KernelMemory, entry: number): void {
  const word = wordOf(words, entry)
  const after = follow(words, word + FLINK)
  const before = follow(words, word + BLINK)
  link(words, (before >>> 2) + FLINK, after)
  link(words, (after >>> 2) + BLINK, before)
  link(words, word + FLINK, entry)
  link(words, word + BLINK, entry)
}

/** The first entry, or 0. */
export function firstEntry({ words }: KernelMemory, head: number): number {
  const first = follow(words, wordOf(words, head) + FLINK)
  return first === head ? 0 : first
}

/** The last entry, or 0. */
export function lastEntry({ words }: KernelMemory, head: number): number {
  const last = follow(words, wordOf(words, head) + BLINK)
  return last === head ? 0 : last
}

/** The entry after `entry`, or 0 at the end. */
export function nextEntry({ words }: KernelMemory, head: number, entry: number): number {
  const next = follow(words, wordOf(words, entry) + FLINK)
  return next === head ? 0 : next
}

/** The entry before `entry`, or 0 at the beginning. */
export function previousEntry({ words }: KernelMemory, head: number, entry: number): number {
  const previous = follow(words, wordOf(words, entry) + BLINK)
  return previous === head ? 0 : previous
}

/** Takes out the first entry; 0 when there is none. */
export function removeHead(memory: KernelMemory, head: number): number {
  const first = firstEntry(memory, head)
  if (first !== 0) removeEntry(memory, first)
  return first
}
