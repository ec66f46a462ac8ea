import type { Window } from '../../protocol/window.ts'
import { LIST_ENTRY } from './layout.ts'

/** Doubly linked lists inside records (InitializeListHead and its family). `head` and `entry` are addresses. */

export function initializeList(window: Window, head: number): void {
  window.putLe64(LIST_ENTRY.flink, head, head)
  window.putLe64(LIST_ENTRY.blink, head, head)
}

/** Also true of an entry that is in no list, once initialised. */
export function listIsEmpty(window: Window, head: number): boolean {
  return window.le64(LIST_ENTRY.flink, head) === head
}

export function insertTail(window: Window, head: number, entry: number): void {
  insertBetween(window, window.le64(LIST_ENTRY.blink, head), entry, head)
}

export function insertHead(window: Window, head: number, entry: number): void {
  insertBetween(window, head, entry, window.le64(LIST_ENTRY.flink, head))
}

function insertBetween(window: Window, before: number, entry: number, after: number): void {
  window.putLe64(LIST_ENTRY.flink, after, entry)
  window.putLe64(LIST_ENTRY.blink, before, entry)
  window.putLe64(LIST_ENTRY.flink, entry, before)
  window.putLe64(LIST_ENTRY.blink, entry, after)
}

/** Puts `entry` in front of `next`, which is an entry or the head. */
export function insertBefore(window: Window, next: number, entry: number): void {
  insertBetween(window, window.le64(LIST_ENTRY.blink, next), entry, next)
}

/** Takes the entry out and leaves it pointing at itself, so that taking it out again does nothing. */
export function removeEntry(window: Window, entry: number): void {
  const after = window.le64(LIST_ENTRY.flink, entry)
  const before = window.le64(LIST_ENTRY.blink, entry)
  window.putLe64(LIST_ENTRY.flink, after, before)
  window.putLe64(LIST_ENTRY.blink, before, after)
  initializeList(window, entry)
}

/** The first entry, or 0. */
export function firstEntry(window: Window, head: number): number {
  const first = window.le64(LIST_ENTRY.flink, head)
  return first === head ? 0 : first
}

/** The entry after `entry`, or 0 at the end. */
export function nextEntry(window: Window, head: number, entry: number): number {
  const next = window.le64(LIST_ENTRY.flink, entry)
  return next === head ? 0 : next
}

/** Takes out the first entry; 0 when there is none. */
export function removeHead(window: Window, head: number): number {
  const first = firstEntry(window, head)
  if (first !== 0) removeEntry(window, first)
  return first
}
