import type { KernelMemory } from './kernel-memory.ts'
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
export function keInitializeDeviceQueue(memory: KernelMemory, queue: number): void {
  memory.window.putLe16(KDEVICE_QUEUE.type, DEVICE_QUEUE, queue)
  memory.window.putLe16(KDEVICE_QUEUE.size, KDEVICE_QUEUE.$size, queue)
  memory.window.putLe64(KDEVICE_QUEUE.lock, 0, queue)
  memory.window.putU8(KDEVICE_QUEUE.busy, 0, queue)
  initializeList(memory, headOf(queue))
}

/** KeInsertDeviceQueue: false when the queue was idle. It is busy now and the caller serves the request. */
export function keInsertDeviceQueue(memory: KernelMemory, queue: number, entry: number): boolean {
  const busy = occupy(memory, queue)
  if (busy) insertTail(memory, headOf(queue), entry)
  memory.window.putU8(KDEVICE_QUEUE_ENTRY.inserted, busy ? 1 : 0, entry)
  return busy
}

/** KeInsertByKeyDeviceQueue: behind entries of the same or a smaller key. */
export function keInsertByKeyDeviceQueue(
  memory: KernelMemory,
  queue: number,
  entry: number,
  key: number,
): boolean {
  memory.window.putLe32(KDEVICE_QUEUE_ENTRY.sortKey, key, entry)
  const busy = occupy(memory, queue)
  if (busy) {
    const head = headOf(queue)
    let next = firstEntry(memory, head)
    while (next !== 0 && memory.window.le32(KDEVICE_QUEUE_ENTRY.sortKey, next) <= key)
      next = nextEntry(memory, head, next)
    insertBefore(memory, next === 0 ? head : next, entry)
  }
  memory.window.putU8(KDEVICE_QUEUE_ENTRY.inserted, busy ? 1 : 0, entry)
  return busy
}

/** KeRemoveDeviceQueue: the first entry; 0 when there is none, and the queue is idle then. */
export function keRemoveDeviceQueue(memory: KernelMemory, queue: number): number {
  const entry = removeHead(memory, headOf(queue))
  if (entry === 0) memory.window.putU8(KDEVICE_QUEUE.busy, 0, queue)
  else memory.window.putU8(KDEVICE_QUEUE_ENTRY.inserted, 0, entry)
  return entry
}

/** KeRemoveByKeyDeviceQueue: the first entry whose key is `key` or greater, else the first of all. */
export function keRemoveByKeyDeviceQueue(memory: KernelMemory, queue: number, key: number): number {
  const head = headOf(queue)
  let entry = firstEntry(memory, head)
  while (entry !== 0 && memory.window.le32(KDEVICE_QUEUE_ENTRY.sortKey, entry) < key)
    entry = nextEntry(memory, head, entry)
  if (entry === 0) return keRemoveDeviceQueue(memory, queue)
  removeEntry(memory, entry)
  memory.window.putU8(KDEVICE_QUEUE_ENTRY.inserted, 0, entry)
  return entry
}

/** KeRemoveEntryDeviceQueue: whether it was queued. */
export function keRemoveEntryDeviceQueue(memory: KernelMemory, entry: number): boolean {
  if (memory.window.u8(KDEVICE_QUEUE_ENTRY.inserted, entry) === 0) return false
  removeEntry(memory, entry)
  memory.window.putU8(KDEVICE_QUEUE_ENTRY.inserted, 0, entry)
  return true
}

/** Whether a request is being served. */
export function deviceQueueIsBusy(memory: KernelMemory, queue: number): boolean {
  return memory.window.u8(KDEVICE_QUEUE.busy, queue) !== 0
}

function headOf(queue: number): number {
  return queue + KDEVICE_QUEUE.deviceListHead
}

/** Marks the queue busy; whether it was. */
function occupy(memory: KernelMemory, queue: number): boolean {
  const busy = memory.window.u8(KDEVICE_QUEUE.busy, queue) !== 0
  memory.window.putU8(KDEVICE_QUEUE.busy, 1, queue)
  return busy
}
