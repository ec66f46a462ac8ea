import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { POISON, PoolType, poolTag, poolTagText } from '../../guest/kernel/pool.ts'
import { Rig, TAG } from './kernel-rig.ts'
import { Machine } from './machine.ts'

const PAGE = 4096

describe('the pools', () => {
  it('count what each tag holds, and keep blocks apart', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(6000), fc.nat(2), fc.nat(4)), { maxLength: 60 }), (steps) => {
        const rig = new Rig()
        const { kernel } = rig
        const live: { at: number; lengthBytes: number; value: number; tag: number }[] = []
        for (const [index, [lengthBytes, tagIndex, frees]] of steps.entries()) {
          const tag = poolTag(`Tst${tagIndex}`)
          const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, lengthBytes, tag)
          if (at === 0) continue
          expect(at % 16).toBe(0)
          kernel.parts.memory.bytes.fill(index, at, at + lengthBytes)
          live.push({ at, lengthBytes, value: index, tag })
          for (let count = 0; count < frees && live.length > 0; count++) {
            const [block] = live.splice((index * 7 + count) % live.length, 1)
            if (block === undefined) continue
            const held = kernel.parts.memory.bytes.subarray(block.at, block.at + block.lengthBytes)
            expect(held.every((byte) => byte === block.value)).toBe(true)
            kernel.exFreePool(block.at)
          }
        }
        for (let tagIndex = 0; tagIndex < 3; tagIndex++) {
          const tag = poolTag(`Tst${tagIndex}`)
          expect(kernel.parts.pool.countOf(tag)).toBe(live.filter((block) => block.tag === tag).length)
        }
        for (const block of live) kernel.exFreePool(block.at)
        rig.end()
      }),
      { numRuns: 60 },
    )
  })

  it.each([0x7fff_ffff, 0xffff_ffd8, 0xffff_ffff, 2 ** 32, 2 ** 32 + 8])(
    'have no block of %d bytes, and touch nothing when they are asked for one',
    (lengthBytes) => {
      const rig = new Rig()
      const { kernel } = rig
      const before = kernel.parts.pool.count
      expect(kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, lengthBytes, TAG)).toBe(0)
      expect(kernel.parts.pool.count).toBe(before)
      kernel.parts.pool.check()
      rig.end()
    },
  )

  it('poison what is freed, and do not hand fresh memory out as zeros', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { bytes } = kernel.parts.memory
    const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 40, TAG)
    expect(bytes.subarray(at, at + 40).some((byte) => byte !== 0)).toBe(true)
    kernel.exFreePool(at)
    expect([...bytes.subarray(at, at + 40)]).toEqual(new Array(40).fill(POISON))
    rig.end()
  })

  it.each([
    [
      'a double free',
      0xc2,
      7,
      (machine: Machine, at: number) => {
        machine.kernel.exFreePool(at)
        machine.kernel.exFreePool(at)
      },
    ],
    [
      'a free of an address inside a block',
      0xc2,
      0x46,
      (machine: Machine, at: number) => machine.kernel.exFreePool(at + 16),
    ],
    [
      'a write past the end',
      0x19,
      0x20,
      (machine: Machine, at: number) => {
        machine.kernel.parts.memory.bytes[at + 40] = 1
        machine.kernel.exFreePool(at)
      },
    ],
    [
      'a write before the start',
      0x19,
      0x20,
      (machine: Machine, at: number) => {
        machine.kernel.parts.memory.bytes[at - 8] = 1
        machine.kernel.exFreePool(at)
      },
    ],
    [
      'a paged free at DISPATCH level',
      0xc2,
      9,
      (machine: Machine) => {
        const paged = machine.kernel.exAllocatePoolWithTag(PoolType.PAGED, 8, TAG)
        machine.kernel.keRaiseIrql(2)
        machine.kernel.exFreePool(paged)
      },
    ],
    [
      'a paged allocation at DISPATCH level',
      0xc2,
      8,
      (machine: Machine) => {
        machine.kernel.keRaiseIrql(2)
        machine.kernel.exAllocatePoolWithTag(PoolType.PAGED, 8, TAG)
      },
    ],
    [
      'an allocation above DISPATCH level',
      0xc2,
      8,
      (machine: Machine) => {
        machine.kernel.keRaiseIrql(3)
        machine.kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 8, TAG)
      },
    ],
  ] as const)('stop the system at %s', (_what, code, first, act) => {
    const machine = new Machine({ ramBytes: 2 ** 21 })
    expect(
      machine.crash(function* () {
        const at = machine.kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 40, TAG)
        act(machine, at)
        yield
      }),
    ).toEqual([code, first])
  })

  it('find a write after free when the memory is looked at or used again', () => {
    for (const again of [false, true]) {
      const machine = new Machine({ ramBytes: 2 ** 21 })
      const { kernel } = machine
      const [code] = machine.crash(function* () {
        const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 40, TAG)
        kernel.exFreePool(at)
        kernel.parts.memory.bytes[at + 7] = 0
        if (!again) kernel.parts.pool.check()
        for (let count = 0; count < 100; count++) {
          kernel.exFreePool(kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 40, TAG))
        }
        yield
      })
      expect(code).toBe(0xc5)
    }
  })

  it('find a write after free in the last byte of a block of any length', () => {
    for (let lengthBytes = 1; lengthBytes <= 24; lengthBytes++) {
      const machine = new Machine({ ramBytes: 2 ** 21 })
      const { kernel } = machine
      const [code] = machine.crash(function* () {
        const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, lengthBytes, TAG)
        kernel.exFreePool(at)
        kernel.parts.memory.bytes[at + lengthBytes - 1] = 0
        kernel.parts.pool.check()
        yield
      })
      expect(code).toBe(0xc5)
    }
  })

  it('use a place again for blocks of other lengths, whole and apart', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { bytes } = kernel.parts.memory
    const live: { at: number; lengthBytes: number; value: number }[] = []
    const places = new Set<number>()
    let again = 0
    for (let round = 0; round < 1500; round++) {
      // Some are whole pages, whose freed memory is anybody's: it is not looked at for poison.
      const lengthBytes = round % 29 === 0 ? 2100 + round : (round * 7) % 105
      const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, lengthBytes, TAG)
      if (places.has(at)) again++
      places.add(at)
      bytes.fill(round % 251, at, at + lengthBytes)
      live.push({ at, lengthBytes, value: round % 251 })
      if (live.length < 40) continue
      kernel.parts.pool.check()
      for (const block of live.splice((round * 13) % 20, 20)) {
        const held = bytes.subarray(block.at, block.at + block.lengthBytes)
        expect(held.every((byte) => byte === block.value)).toBe(true)
        expect(kernel.parts.pool.lengthOf(block.at)).toBe(block.lengthBytes)
        kernel.exFreePool(block.at)
      }
    }
    expect(again).toBeGreaterThan(500)
    for (const block of live) kernel.exFreePool(block.at)
    rig.end()
  })

  it('look for no poison in pages that were given back and are somebody else’s', () => {
    const rig = new Rig()
    const { kernel } = rig
    kernel.exFreePool(kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 6000, TAG))
    const pages: number[] = []
    for (let at = 1; at !== 0; ) {
      at = kernel.mmAllocateContiguousMemory(PAGE)
      if (at !== 0) pages.push(at)
    }
    kernel.parts.pool.check()
    for (const at of pages) kernel.mmFreeContiguousMemory(at, PAGE)
    rig.end()
  })

  it('answer 0 when RAM is used up, and work again after a free', () => {
    const rig = new Rig()
    const { kernel } = rig
    const blocks: number[] = []
    for (;;) {
      const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 50_000, TAG)
      if (at === 0) break
      blocks.push(at)
    }
    expect(blocks.length).toBeGreaterThan(20)
    kernel.exFreePool(blocks.pop() as number)
    const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 50_000, TAG)
    expect(at).not.toBe(0)
    for (const block of [...blocks, at]) kernel.exFreePool(block)
    rig.end()
  })

  it('can be told to refuse, for low-memory tests', () => {
    const rig = new Rig()
    const { kernel } = rig
    kernel.parts.pool.refuse = (tag) => tag === TAG
    expect(kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 8, TAG)).toBe(0)
    kernel.parts.pool.refuse = null
    rig.end()
  })

  it('write tags as their four characters', () => {
    expect(poolTagText(poolTag('Irp '))).toBe('Irp ')
    expect(poolTagText(poolTag('ab'))).toBe('ab  ')
    expect(poolTag('abcd')).toBe(0x64636261)
  })
})
