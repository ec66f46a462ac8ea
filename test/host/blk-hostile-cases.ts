import { Mmio } from '../../protocol/virtio/mmio.ts'
import { DISCARD, FLUSH, IN, OUT, WRITE_ZEROES } from './blk-model.ts'
import type { Scene } from './blk-scene.ts'
import { AT, MEMORY_BYTES, readable, SIZE, STATUS, STATUS_AT, writable } from './blk-scene.ts'
import { RawQueue } from './raw-queue.ts'

/** A hostile step and what may come of it. */
export interface HostileCase {
  readonly behaviour: string
  readonly rules: readonly string[]
  /** Used lengths of the chains offered, in order; none for what is never given back. */
  readonly used: readonly number[]
  /** The status byte, where there is one to look at. */
  readonly status?: number
  act(scene: Scene): void
}

export const HOSTILE_CASES: readonly HostileCase[] = [
  {
    behaviour: 'H03: a chain of nothing but empty buffers',
    rules: ['block.status-absent'],
    used: [0],
    act: (scene) => scene.serve([readable(AT, 0), writable(AT, 0)]),
  },
  {
    behaviour: 'H03: a discard of no ranges',
    rules: ['block.data-length'],
    used: [1],
    status: 1,
    act(scene) {
      scene.header(DISCARD, 0n)
      scene.serve([readable(AT, 16), STATUS])
    },
  },
  {
    behaviour: 'H07: data that ends past memory',
    rules: ['split.buffer-backed'],
    used: [0],
    act(scene) {
      scene.header(IN, 0n)
      scene.serve([readable(AT, 16), writable(MEMORY_BYTES - 511, 512), STATUS])
    },
  },
  {
    behaviour: 'H07: data whose end wraps the address space',
    rules: ['split.buffer-backed'],
    used: [0],
    act(scene) {
      scene.header(OUT, 0n)
      scene.queue.describe(0, BigInt(AT), 16, 1, 1)
      scene.queue.describe(1, 0xffff_ffff_ffff_fe00n, 512, 1, 2)
      scene.queue.describe(2, BigInt(STATUS_AT), 1, 2, 0)
      scene.queue.offerAnything(0)
      scene.go()
    },
  },
  {
    behaviour: 'H07: a status byte outside memory',
    rules: ['split.buffer-backed'],
    used: [0],
    act(scene) {
      scene.header(FLUSH, 0n)
      scene.serve([readable(AT, 16), writable(MEMORY_BYTES, 1)])
    },
  },
  {
    behaviour: 'H08: a status byte before the data of a write',
    rules: ['split.readable-after-writable'],
    used: [0],
    act(scene) {
      scene.header(OUT, 0n)
      scene.serve([readable(AT, 16), STATUS, readable(AT + 16, 512)])
    },
  },
  {
    behaviour: 'H08: a header that can only be written',
    rules: ['block.header-short'],
    used: [0],
    status: 1,
    act(scene) {
      scene.header(IN, 0n)
      scene.serve([writable(AT, 16), STATUS])
    },
  },
  {
    behaviour: 'H08: data on both sides',
    rules: ['block.data-direction'],
    used: [0],
    status: 1,
    act(scene) {
      scene.header(OUT, 0n)
      scene.serve([readable(AT, 528), writable(AT + 1024, 16), STATUS])
    },
  },
  {
    behaviour: 'H09: a range table that ends in the middle of a range',
    rules: ['block.data-length'],
    used: [1],
    status: 1,
    act(scene) {
      scene.header(WRITE_ZEROES, 0n)
      scene.serve([readable(AT, 16 + 24), STATUS])
    },
  },
  {
    behaviour: 'H10: a sector of 2^64 - 1',
    rules: ['block.range'],
    used: [0],
    status: 1,
    act(scene) {
      scene.header(IN, 2n ** 64n - 1n)
      scene.serve([readable(AT, 16), writable(AT + 16, 512), STATUS])
    },
  },
  {
    behaviour: 'H10: a sector times 512 that is 0 in 64 bits',
    rules: ['block.range'],
    used: [1],
    status: 1,
    act(scene) {
      scene.header(OUT, 2n ** 55n)
      scene.serve([readable(AT, 528), STATUS])
    },
  },
  {
    behaviour: 'H10: a range that begins inside and counts 2^32 - 1 sectors',
    rules: ['block.segment-sectors'],
    used: [1],
    status: 1,
    act(scene) {
      scene.header(DISCARD, 0n)
      const view = new DataView(scene.rig.bytes.buffer, AT + 16, 16)
      view.setBigUint64(0, 1n, true)
      view.setUint32(8, 0xffff_ffff, true)
      view.setUint32(12, 0, true)
      scene.serve([readable(AT, 32), STATUS])
    },
  },
  {
    behaviour: 'H11: notifications of queues that do not exist',
    rules: Array.from({ length: 3 }, () => 'mmio.queue-range'),
    used: [],
    act(scene) {
      for (const queue of [2, 0xffff, 0xffff_ffff]) scene.rig.kick(queue)
      scene.rig.drain()
    },
  },
  {
    behaviour: 'H12: a live queue that is moved',
    rules: Array.from({ length: 4 }, () => 'mmio.queue-live'),
    used: [],
    act(scene) {
      scene.rig.write(Mmio.QueueSel, 0)
      scene.rig.write(Mmio.QueueDescLow, 0x9000)
      scene.rig.write(Mmio.QueueDeviceHigh, 1)
      scene.rig.write(Mmio.QueueSize, 4)
      scene.rig.write(Mmio.QueueReady, 1)
    },
  },
  {
    behaviour: 'H13: types of other ages and devices',
    rules: [],
    used: [1, 1, 1, 1, 1],
    status: 2,
    act(scene) {
      for (const type of [2, 3, 5, 0x8000_0000, 15]) {
        scene.header(type, 0n)
        scene.serve([readable(AT, 16), STATUS])
      }
    },
  },
  {
    behaviour: 'H24: a read into the used ring of its own queue',
    rules: [],
    used: [],
    act(scene) {
      scene.header(IN, 0n)
      scene.serve([readable(AT, 16), writable(scene.queue.place.device, 4 + 8 * SIZE - 100), STATUS])
      // The driver has spoilt its own ring: a reset is what it needs now.
      scene.rig.write(Mmio.Status, 0)
      scene.rig.drain()
      scene.queue = scene.rig.bringUp(scene.rig.device.offered, SIZE)
      scene.witness = new RawQueue(scene.rig.memory, scene.witness.place)
      scene.rig.startQueue(1, scene.witness.place)
      scene.rig.violations.length = 0
    },
  },
  {
    behaviour: 'H24: a status byte in its own header and in its own descriptor',
    rules: [],
    used: [1, 1],
    act(scene) {
      scene.header(FLUSH, 0n)
      scene.serve([readable(AT, 16), writable(AT, 1)])
      scene.header(FLUSH, 0n)
      scene.serve([readable(AT, 16), writable(scene.queue.place.descriptors, 1)])
    },
  },
  {
    behaviour: 'H27: a write past the end by one sector',
    rules: ['block.range'],
    used: [1],
    status: 1,
    act(scene) {
      scene.header(OUT, 63n)
      scene.serve([readable(AT, 16 + 1024), STATUS])
    },
  },
  {
    behaviour: 'H27: ranges of which only the last is bad',
    rules: ['block.range'],
    used: [1],
    status: 1,
    act(scene) {
      scene.header(WRITE_ZEROES, 0n)
      const view = new DataView(scene.rig.bytes.buffer, AT + 16, 32)
      for (const [i, sector] of [0n, 64n].entries()) {
        view.setBigUint64(16 * i, sector, true)
        view.setUint32(16 * i + 8, 1, true)
        view.setUint32(16 * i + 12, 0, true)
      }
      scene.serve([readable(AT, 48), STATUS])
    },
  },
]
