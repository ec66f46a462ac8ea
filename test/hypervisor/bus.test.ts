import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Bus, type BusRange, floating } from '../../hypervisor/bus.ts'
import type { AccessWidth, RegisterDevice } from '../../protocol/platform.ts'

const END = 64
const width = fc.constantFrom<AccessWidth>(1, 2, 4, 8)

type Act =
  | { readonly kind: 'map'; readonly at: number; readonly length: number }
  | { readonly kind: 'unmap'; readonly which: number }
  | { readonly kind: 'access'; readonly at: number; readonly width: AccessWidth; readonly write: boolean }

const acts: fc.Arbitrary<readonly Act[]> = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant('map' as const),
      at: fc.integer({ min: -2, max: 66 }),
      length: fc.nat(6),
    }),
    fc.record({ kind: fc.constant('unmap' as const), which: fc.nat(20) }),
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('access' as const),
        at: fc.nat(70),
        width,
        write: fc.boolean(),
      }),
    },
  ),
  { maxLength: 60 },
)

interface Mapped {
  readonly range: BusRange
  readonly owner: number
}

describe('a bus', () => {
  it('takes each access to the device whose range holds all of it, through any maps and unmaps', () => {
    fc.assert(
      fc.property(acts, (script) => {
        const bus = new Bus(END)
        /** The model: who owns each byte. */
        const owners = new Array<number | null>(END + 16).fill(null)
        const live: Mapped[] = []
        const gone: BusRange[] = []
        let seen: string[] = []
        let unclaimed = 0
        const device = (owner: number): RegisterDevice => ({
          read: (offset, size) => {
            seen.push(`${owner} reads ${offset} ${size}`)
            return owner
          },
          write: (offset, size, value) => {
            seen.push(`${owner} writes ${offset} ${size} ${value}`)
          },
        })
        script.forEach((act, owner) => {
          if (act.kind === 'map') {
            const { at, length } = act
            const free = owners.slice(Math.max(at, 0), at + length).every((one) => one === null)
            const valid = at >= 0 && length > 0 && at + length <= END && free
            if (!valid) {
              expect(() => bus.map(`d${owner}`, at, length, device(owner))).toThrow(RangeError)
              return
            }
            live.push({ range: bus.map(`d${owner}`, at, length, device(owner)), owner })
            owners.fill(owner, at, at + length)
          } else if (act.kind === 'unmap') {
            const [taken] = live.splice(act.which, 1)
            if (taken !== undefined) {
              expect(bus.unmap(taken.range)).toBe(true)
              owners.fill(null, taken.range.base, taken.range.end)
              gone.push(taken.range)
            }
            for (const range of gone) expect(bus.unmap(range)).toBe(false)
          } else {
            const bytes = owners.slice(act.at, act.at + act.width)
            const owner = bytes[0] ?? null
            const whole = owner !== null && bytes.length === act.width && bytes.every((one) => one === owner)
            const at = whole ? act.at - (live.find((one) => one.owner === owner)?.range.base ?? 0) : 0
            seen = []
            if (!whole) unclaimed++
            if (act.write) bus.write(act.at, act.width, 5)
            else expect(bus.read(act.at, act.width)).toBe(whole ? owner : floating(act.width))
            const wanted = act.write
              ? `${owner} writes ${at} ${act.width} 5`
              : `${owner} reads ${at} ${act.width}`
            expect(seen).toEqual(whole ? [wanted] : [])
          }
          expect(bus.unclaimed).toBe(unclaimed)
        })
      }),
      { numRuns: 500 },
    )
  })

  it('counts reads and writes by device, and floats as all ones', () => {
    const bus = new Bus(0x10000)
    const range = bus.map('uart', 0x3f8, 8, { read: () => 1, write() {} })
    bus.read(0x3f8, 1)
    bus.write(0x3ff, 1, 0)
    bus.write(0x3ff, 2, 0)
    expect([range.reads, range.writes, bus.unclaimed]).toEqual([1, 1, 1])
    expect([1, 2, 4].map((one) => bus.read(0, one as AccessWidth))).toEqual([0xff, 0xffff, 0xffff_ffff])
    expect(bus.read(0, 8)).toBe(2 ** 53 - 1)
  })

  it('lets a device take itself away in the middle of an access', () => {
    const bus = new Bus(16)
    const range: BusRange = bus.map('gone', 0, 8, {
      read: () => 7,
      write: () => {
        bus.unmap(range)
      },
    })
    bus.write(0, 4, 0)
    expect(bus.read(0, 4)).toBe(0xffff_ffff)
  })
})
