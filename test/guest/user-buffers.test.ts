import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { User } from '../../guest/user.ts'
import { Rig } from './kernel-rig.ts'

const PAGE = 4096

describe('a buffer of an application', () => {
  it('is seen as it lies in RAM: pieces that end where the next page is elsewhere, and hold its bytes in order', () => {
    const length = fc.integer({ min: 1, max: 40_000 })
    fc.assert(
      fc.property(length, fc.nat(PAGE - 1), fc.boolean(), (lengthBytes, skip, large) => {
        const { kernel } = new Rig()
        const user = new User(kernel)
        const { space, memory } = kernel.parts
        const before = kernel.parts.frames.freeCount
        // Runs begin behind what was given out before them.
        const held = user.allocateLarge(PAGE)
        const buffer = large ? user.allocateLarge(skip + lengthBytes) : user.allocate(skip + lengthBytes)
        const at = buffer + skip
        const pattern = Uint8Array.from({ length: lengthBytes }, (_, index) => index * 31)
        expect(user.put(at, pattern)).toBe(true)
        const views = user.views(at, lengthBytes) ?? []
        expect(Buffer.compare(Buffer.concat(views), pattern)).toBe(0)
        const pages = Math.ceil(((at % PAGE) + lengthBytes) / PAGE)
        if (large) expect(views).toHaveLength(1)
        else expect(views).toHaveLength(pages)
        let done = 0
        for (const view of views) {
          expect(view.byteOffset - memory.bytes.byteOffset).toBe(space.physical(at + done))
          done += view.length
        }
        expect(user.views(at, skip + lengthBytes + 2 * PAGE)).toBe(null)
        user.free(buffer)
        user.free(held)
        expect(kernel.parts.frames.freeCount).toBe(before)
      }),
    )
  })

  it('of large pages is one of scattered ones where no run of RAM is free', () => {
    const { kernel } = new Rig()
    const user = new User(kernel)
    const pages = kernel.parts.frames.freeCount
    // Single pages, each far from the one before: what is left has holes everywhere.
    const singles = Array.from({ length: pages - 64 }, () => user.allocate(PAGE))
    const buffer = user.allocateLarge(60 * PAGE)
    expect(buffer).not.toBe(0)
    expect(user.views(buffer, 60 * PAGE)?.length).toBeGreaterThan(1)
    for (const one of singles) user.free(one)
  })
})
