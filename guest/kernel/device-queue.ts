import type { Window } from '../../protocol/window.ts'
import { KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY } from './layout.ts'
import {
  firstEntry,
  initializeList,
  insertBefore,
  insertTail,
  nextEntry,
  removeEntry,
  removeHead,
} from './list.ts'

const DEVICE_QUEUE = 20

/**
 * KDEVICE_QUEUEs: requests for a device that serves one at a time. A queue is busy or idle; what comes to an
 * idle one is not queued but served by its caller. `queue` and `entry` are addresses.
 */

/** KeInitializeDeviceQueue: idle. */
export function keInitializeDeviceQueue(window: Window, queue: number): void {
  window.putLe16(KDEVICE_QUEUE.type, DEVICE_QUEUE, queue)
  window.putLe16(KDEVICE_QUEUE.size, KDEVICE_QUEUE.$size, queue)
  window.putLe64(KDEVICE_QUEUE.lock, 0, queue)
  window.putU8(KDEVICE_QUEUE.busy, 0, queue)
  initializeList(window, headOf(queue))
}

/** KeInsertDeviceQueue: false when the queue was idle. It is busy now and the caller serves the request. */
export function keInsertDeviceQueue(window: Window, queue: number, entry: number): boolean {
  const busy = occupy(window, queue)
  if (busy) insertTail(window, headOf(queue), entry)
  window.putU8(KDEVICE_QUEUE_ENTRY.inserted, busy ? 1 : 0, entry)
  return busy
}

/** KeInsertByKeyDeviceQueue: behind entries of the same or a smaller key. */
export function keInsertByKeyDeviceQueue(window: Window, queue: number, entry: number, key: number): boolean {
  window.putLe32(KDEVICE_QUEUE_ENTRY.sortKey, key, entry)
  const busy = occupy(window, queue)
  if (busy) {
    const head = headOf(queue)
    let next = firstEntry(window, head)
    while (next !== 0 && window.le32(KDEVICE_QUEUE_ENTRY.sortKey, next) <= key)
      next = nextEntry(window, head, next)
    insertBefore(window, next === 0 ? head : next, entry)
  }
  window.putU8(KDEVICE_QUEUE_ENTRY.inserted, busy ? 1 : 0, entry)
  return busy
}

/** KeRemoveDeviceQueue: the first entry; 0 when there is none, and the queue is idle then. */
export function keRemoveDeviceQueue(window: Window, queue: number): number {
  const entry = removeHead(window, headOf(queue))
  if (entry === 0) window.putU8(KDEVICE_QUEUE.busy, 0, queue)
  else window.putU8(KDEVICE_QUEUE_ENTRY.inserted, 0, entry)
  return entry
}

/** KeRemoveByKeyDeviceQueue: the first entry whose key is `key` or greater, else the first of all. */
export function keRemoveByKeyDeviceQueue(window: Window, queue: number, key: number): number {
  const head = headOf(queue)
  let entry = firstEntry(window, head)
  while (entry !== 0 && window.le32(KDEVICE_QUEUE_ENTRY.sortKey, entry) < key)
    entry = nextEntry(window, head, entry)
  if (entry === 0) return keRemoveDeviceQueue(window, queue)
  removeEntry(window, entry)
  window.putU8(KDEVICE_QUEUE_ENTRY.inserted, 0, entry)
  return entry
}

/** KeRemoveEntryDeviceQueue: whether it was queued. */
export function keRemoveEntryDeviceQueue(window: Window, entry: number): boolean {
  if (window.u8(KDEVICE_QUEUE_ENTRY.inserted, entry) === 0) return false
  removeEntry(window, entry)
  window.putU8(KDEVICE_QUEUE_ENTRY.inserted, 0, entry)
  return true
}

/** Whether a request is being served. */
export function deviceQueueIsBusy(window: Window, queue: number): boolean {
  return window.u8(KDEVICE_QUEUE.busy, queue) !== 0
}

function headOf(queue: number): number {
  return queue + KDEVICE_QUEUE.deviceListHead
}

/** Marks the queue busy; whether it was. */
function occupy(window: Window, queue: number): boolean {
  const busy = window.u8(KDEVICE_QUEUE.busy, queue) !== 0
  window.putU8(KDEVICE_QUEUE.busy, 1, queue)
  return busy
}
