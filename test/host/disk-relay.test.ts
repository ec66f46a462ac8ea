import { describe, expect, it } from 'vitest'
import { ContentTracedDisk } from '../../bench/content-traced.ts'
import { FaultDisk } from '../../bench/fault-disk.ts'
import { ModuleGuard } from '../../bench/module-guard.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { TracedDisk } from '../../host/disk/traced.ts'
import type { Trace } from '../../protocol/trace.ts'
import { TestIo } from '../conformance/disk-subject.ts'
import { HeldDisk } from './held-disk.ts'

const TRACE: Trace = { on: true, emit: () => {} }

const LAYERS: readonly { readonly name: string; over(disk: DiskBackend): DiskBackend }[] = [
  { name: 'what traces requests', over: (disk) => new TracedDisk(disk, TRACE, 'disk0') },
  { name: 'what traces content', over: (disk) => new ContentTracedDisk(disk, TRACE, 'disk0') },
  { name: "what guards a user's module", over: (disk) => new ModuleGuard(disk, () => {}) },
  {
    name: 'a fault that corrupts',
    over(disk) {
      const faulty = new FaultDisk(disk, TRACE, 'disk0')
      faulty.inject({ effect: 'corrupt', times: 2 })
      return faulty
    },
  },
]

describe.each(LAYERS)('a request through $name', ({ over }) => {
  it('is given up below when it is given up above, before it was submitted or after', () => {
    const held = new HeldDisk()
    const disk = over(held)
    const [early, late] = [0, 512].map((offset) => new TestIo('read', offset, 512, [new Uint8Array(512)]))
    if (early === undefined || late === undefined) throw new Error('no requests')
    early.cancel()
    disk.submit(early)
    disk.submit(late)
    expect([early.outcome, late.outcome]).toEqual(['cancelled', null])
    late.cancel()
    expect(late.outcome).toBe('cancelled')
    expect(held.held).toEqual([])
  })

  it('brings what the disk answered, extents too', () => {
    const held = new HeldDisk()
    const disk = over(held)
    const io = new TestIo('extents', 0, 4096, [])
    disk.submit(io)
    held.held[0]?.extents.push({ offset: 0, lengthBytes: 4096, kind: 'hole' })
    held.end(0)
    expect([io.outcome, io.extents]).toEqual(['ok', [{ offset: 0, lengthBytes: 4096, kind: 'hole' }]])
  })
})
