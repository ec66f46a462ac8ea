/** Block requests of a few lines, for the tests of a session. */
import { expect } from 'vitest'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { HeldDisk } from './held-disk.ts'
import type { RawQueue } from './raw-queue.ts'
import { placeOf, VhostRig } from './vhost-rig.ts'

export const IN = 0
export const OUT = 1
const HEADER = 0x2_0000
export const DATA = 0x2_1000
export const STATUS = 0x2_2000

export function memoryDisk(): MemoryDisk {
  return new MemoryDisk(1 << 20, {
    blockBytes: 512,
    physicalBlockBytes: 512,
    readOnly: false,
    serial: 'SESSION',
  })
}

export function newQueue(rig: VhostRig, index = 0): RawQueue {
  return rig.queue(placeOf(index))
}

/** Offers one request of a sector; its status byte is 0xff until it is answered. */
export function offer(rig: VhostRig, queue: RawQueue, type: number, sector: number, apart = 0): number {
  const view = new DataView(rig.bytes.buffer, rig.bytes.byteOffset + HEADER + apart)
  view.setUint32(0, type, true)
  view.setUint32(4, 0, true)
  view.setBigUint64(8, BigInt(sector), true)
  rig.bytes[STATUS + apart] = 0xff
  const head = queue.offer([
    { at: HEADER + apart, lengthBytes: 16, write: false },
    { at: DATA + apart, lengthBytes: 512, write: type === IN },
    { at: STATUS + apart, lengthBytes: 1, write: true },
  ])
  queue.publish()
  return head
}

/** One read goes through, and comes back first. */
export function readsBack(rig: VhostRig, queue: RawQueue, sector: number): void {
  const head = offer(rig, queue, IN, sector)
  rig.kick(0)
  expect(queue.reap()?.head).toBe(head)
}

/** A running ring with a read that its disk keeps, in memory that is on loan meanwhile. */
export function readOnLoan(): { readonly disk: HeldDisk; readonly rig: VhostRig; readonly queue: RawQueue } {
  const disk = new HeldDisk({ privateLoans: false })
  const rig = new VhostRig({ backend: disk })
  const queue = rig.start()
  offer(rig, queue, IN, 0)
  rig.kick(0)
  return { disk, rig, queue }
}

export function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0
}
