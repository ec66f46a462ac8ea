import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BugCheck } from '../../guest/kernel/bug-check.ts'
import { LockOperation, type Mdl, spanPages } from '../../guest/kernel/mdl.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PageFrames, RESERVED_BYTES } from '../../guest/kernel/page-frames.ts'
import { PoolType } from '../../guest/kernel/pool.ts'
import { Rig, TAG } from './kernel-rig.ts'

const PAGE = 4096

describe('page frames', () => {
  it('are given out once, in runs on their alignment or scattered', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), fc.constantFrom(1, 2, 4, 8)), { maxLength: 40 }),
        (steps) => {
          const frames = new PageFrames(RESERVED_BYTES + 112 * PAGE)
          const owned = new Set<number>()
          const runs: [number, number][] = []
          for (const [count, alignment] of steps) {
            const first = count === 0 ? frames.allocateScattered() : frames.allocateRun(count, alignment)
            if (first < 0) {
              const freed = runs.shift()
              if (freed === undefined) continue
              frames.free(...freed)
              for (let page = freed[0]; page < freed[0] + freed[1]; page++) owned.delete(page)
              continue
            }
            if (count > 0) expect(first % alignment).toBe(0)
            expect(first).toBeGreaterThanOrEqual(RESERVED_BYTES / PAGE)
            for (let page = first; page < first + Math.max(1, count); page++) {
              expect(owned.has(page)).toBe(false)
              owned.add(page)
            }
            runs.push([first, Math.max(1, count)])
          }
          expect(frames.freeCount).toBe(112 - owned.size)
        },
      ),
    )
  })
})

/** Physical pages of a user range, by asking for each. */
function pagesOf(rig: Rig, at: number, lengthBytes: number): number[] {
  const pages: number[] = []
  for (let page = at - (at % PAGE); page < at + lengthBytes; page += PAGE) {
    pages.push(rig.kernel.parts.space.frameOf(page, false))
  }
  return pages
}

describe('a record', () => {
  it('that does not lie in RAM is a page fault, not the record at the lower half of its address', () => {
    const rig = new Rig()
    const { kernel } = rig
    const at = rig.room(64)
    for (const wild of [kernel.parts.memory.lengthBytes, 2 ** 32 + at, 2 ** 40, -64, Number.NaN]) {
      expect(() => kernel.mdlAt(wild)).toThrow(BugCheck)
    }
    expect(kernel.mdlAt(at).at).toBe(at)
  })
})

describe('an MDL', () => {
  it('lists the scattered pages of a buffer, locked, and lets the kernel see them side by side', () => {
    fc.assert(
      fc.property(fc.nat(4095), fc.integer({ min: 1, max: 20_000 }), (offsetBytes, lengthBytes) => {
        const rig = new Rig()
        const { kernel } = rig
        const { space, frames, memory } = kernel.parts
        const at = space.allocateUser(lengthBytes, { offsetBytes })
        const mdl = kernel.ioAllocateMdl(at, lengthBytes) as Mdl
        expect(kernel.mmProbeAndLockPages(mdl, LockOperation.WRITE)).toBe(NtStatus.SUCCESS)
        const pages = pagesOf(rig, at, lengthBytes)
        expect(mdl.pageCount).toBe(spanPages(at, lengthBytes))
        expect(pages).toHaveLength(mdl.pageCount)
        expect(Array.from({ length: mdl.pageCount }, (_, index) => mdl.page(index))).toEqual(pages)
        expect(frames.lockedCount).toBe(pages.length)
        for (let index = 1; index < pages.length; index++)
          expect(pages[index]).not.toBe((pages[index - 1] as number) + 1)
        const pattern = Uint8Array.from({ length: lengthBytes }, (_, index) => index * 31)
        space.copyIn(at, pattern)
        const mapped = kernel.mmGetSystemAddressForMdlSafe(mdl)
        expect(kernel.mmGetSystemAddressForMdlSafe(mdl)).toBe(mapped)
        const through = new Uint8Array(lengthBytes)
        kernel.mmWindow(mapped, lengthBytes)?.copyOut(0, through)
        expect(Buffer.compare(through, pattern)).toBe(0)
        // The same bytes again, run by physical run.
        for (let offset = 0; offset < lengthBytes; ) {
          const run = mdl.runBytes(offset, lengthBytes - offset)
          const physical = mdl.physical(offset)
          const here = memory.bytes.subarray(physical, physical + run)
          expect(Buffer.compare(here, pattern.subarray(offset, offset + run))).toBe(0)
          offset += run
        }
        kernel.mmUnlockPages(mdl)
        kernel.ioFreeMdl(mdl)
        space.freeUser(at)
        rig.end()
      }),
      { numRuns: 50 },
    )
  })

  it('over nonpaged pool needs no lock and no mapping', () => {
    const rig = new Rig()
    const { kernel } = rig
    const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 10_000, TAG)
    const mdl = kernel.ioAllocateMdl(at, 10_000) as Mdl
    kernel.mmBuildMdlForNonPagedPool(mdl)
    expect(kernel.mmGetSystemAddressForMdlSafe(mdl)).toBe(at)
    expect(mdl.physical(5000)).toBe(at + 5000)
    expect(mdl.runBytes(0, 10_000)).toBe(10_000)
    kernel.ioFreeMdl(mdl)
    kernel.exFreePool(at)
    rig.end()
  })

  it('may describe a part of another one, mapped or not', () => {
    fc.assert(
      fc.property(
        fc.nat(4095),
        fc.nat(9000),
        fc.integer({ min: 1, max: 6000 }),
        fc.boolean(),
        (offsetBytes, skip, partBytes, mapFirst) => {
          const rig = new Rig()
          const { kernel } = rig
          const { space } = kernel.parts
          const lengthBytes = skip + partBytes
          const at = space.allocateUser(lengthBytes, { offsetBytes })
          const pattern = Uint8Array.from({ length: lengthBytes }, (_, index) => index * 7)
          space.copyIn(at, pattern)
          const mdl = kernel.ioAllocateMdl(at, lengthBytes) as Mdl
          kernel.mmProbeAndLockPages(mdl, LockOperation.READ)
          if (mapFirst) kernel.mmGetSystemAddressForMdlSafe(mdl)
          const part = kernel.ioAllocateMdl(at + skip, partBytes) as Mdl
          kernel.ioBuildPartialMdl(mdl, part, at + skip, 0)
          expect(part.byteCount).toBe(partBytes)
          expect(part.physical(0)).toBe(mdl.physical(skip))
          const through = new Uint8Array(partBytes)
          kernel.mmWindow(kernel.mmGetSystemAddressForMdlSafe(part), partBytes)?.copyOut(0, through)
          expect(Buffer.compare(through, pattern.subarray(skip))).toBe(0)
          kernel.ioFreeMdl(part)
          kernel.mmUnlockPages(mdl)
          kernel.ioFreeMdl(mdl)
          space.freeUser(at)
          rig.end()
        },
      ),
      { numRuns: 40 },
    )
  })

  it('is refused for pages that are not there or may not be written, and keeps none locked', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { space, frames } = kernel.parts
    const readOnly = space.allocateUser(100, { readOnly: true })
    const short = space.allocateUser(PAGE)
    for (const [at, operation, ok] of [
      [readOnly, LockOperation.READ, true],
      [readOnly, LockOperation.WRITE, false],
      [readOnly, LockOperation.MODIFY, false],
      [short + PAGE - 8, LockOperation.READ, false],
      [2 ** 40 + 2 ** 33, LockOperation.READ, false],
    ] as const) {
      const mdl = kernel.ioAllocateMdl(at, 16) as Mdl
      expect(kernel.mmProbeAndLockPages(mdl, operation) === NtStatus.SUCCESS).toBe(ok)
      if (ok) kernel.mmUnlockPages(mdl)
      expect(frames.lockedCount).toBe(0)
      kernel.ioFreeMdl(mdl)
    }
    expect(kernel.ioAllocateMdl(short, -1)).toBeNull()
    expect(kernel.ioAllocateMdl(short, 2 ** 31)).toBeNull()
    space.freeUser(readOnly)
    space.freeUser(short)
    rig.end()
  })

  it.each([
    ['locked twice', 0x4e, (rig: Rig, mdl: Mdl) => rig.kernel.mmProbeAndLockPages(mdl, LockOperation.READ)],
    [
      'unlocked twice',
      0x4e,
      (rig: Rig, mdl: Mdl) => {
        rig.kernel.mmUnlockPages(mdl)
        rig.kernel.mmUnlockPages(mdl)
      },
    ],
    ['freed while locked', 0xcb, (rig: Rig, mdl: Mdl) => rig.kernel.ioFreeMdl(mdl)],
    [
      'mapped while not locked',
      0x4e,
      (rig: Rig, mdl: Mdl) => {
        rig.kernel.mmUnlockPages(mdl)
        rig.kernel.mmGetSystemAddressForMdlSafe(mdl)
      },
    ],
    [
      'locked in a buffer that is freed',
      0x4e,
      (rig: Rig, mdl: Mdl) => rig.kernel.parts.space.freeUser(mdl.virtualAddress),
    ],
  ] as const)('%s stops the system', (_what, code, act) => {
    const rig = new Rig()
    const { kernel } = rig
    const [seen] = rig.machine.crash(function* () {
      const at = kernel.parts.space.allocateUser(100)
      const mdl = kernel.ioAllocateMdl(at, 100) as Mdl
      kernel.mmProbeAndLockPages(mdl, LockOperation.WRITE)
      act(rig, mdl)
      yield
    })
    expect(seen).toBe(code)
  })

  it('is chained behind the first one of a request', () => {
    const rig = new Rig()
    const { kernel } = rig
    const irp = kernel.ioAllocateIrp(1)
    if (irp === null) throw new Error('no memory')
    const first = kernel.ioAllocateMdl(0x20000, 8, irp) as Mdl
    const second = kernel.ioAllocateMdl(0x20000, 8, irp, true) as Mdl
    const third = kernel.ioAllocateMdl(0x20000, 8, irp, true) as Mdl
    expect([irp.mdlAddress, first.next, second.next, third.next]).toEqual([first.at, second.at, third.at, 0])
    for (const mdl of [first, second, third]) kernel.ioFreeMdl(mdl)
    irp.mdlAddress = 0
    kernel.ioFreeIrp(irp)
    rig.end()
  })
})
