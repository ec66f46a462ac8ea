import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PageTable } from '../../guest/kernel/page-table.ts'

// Pages of a few tables, so that tables come and go, with both ends of each.
const page = fc
  .record({ table: fc.constantFrom(0, 1, 2, 2 ** 19, 2 ** 20), index: fc.constantFrom(0, 1, 510, 511) })
  .map(({ table, index }) => table * 512 + index)
const step = fc.oneof(
  fc.record({ do: fc.constant('map' as const), page, frame: fc.nat(2 ** 19), writable: fc.boolean() }),
  fc.record({ do: fc.constant('unmap' as const), page }),
  fc.record({ do: fc.constant('look' as const), page, write: fc.boolean() }),
)

describe('page tables', () => {
  it('are a map of pages, whatever was mapped, taken away and asked for before', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const table = new PageTable()
        const model = new Map<number, { frame: number; writable: boolean }>()
        for (const one of steps) {
          if (one.do === 'map') {
            table.map(one.page, one.frame, one.writable)
            model.set(one.page, one)
          } else if (one.do === 'unmap') expect(table.unmap(one.page)).toBe(model.delete(one.page))
          else {
            const mapping = model.get(one.page)
            const there = mapping !== undefined && (mapping.writable || !one.write)
            expect(table.frameOf(one.page, one.write)).toBe(there ? mapping.frame : -1)
          }
        }
      }),
      { numRuns: 400 },
    )
  })
})
