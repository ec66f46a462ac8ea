import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { RegisterBus } from '../../bench/bus.ts'
import { BareGuest, GuestMemoryExhausted } from '../../bench/guest.ts'
import { LevelLine } from '../../bench/interrupt-line.ts'
import { RegisterCounter } from '../../bench/register-counter.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { AccessWidth, RegisterDevice } from '../../protocol/platform.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'

class Recorder implements RegisterDevice {
  readonly seen: string[] = []

  read(offset: number, width: AccessWidth): number {
    this.seen.push(`read ${offset} ${width}`)
    return 7
  }

  write(offset: number, width: AccessWidth, value: number): void {
    this.seen.push(`write ${offset} ${width} ${value}`)
  }
}

const width = fc.constantFrom<AccessWidth[]>(1, 2, 4, 8)

describe('the register bus', () => {
  test('gives an access to the device whose range holds all of it, and counts every other one', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0xff0, max: 0x1230 }), width, fc.boolean()), { maxLength: 50 }),
        (accesses) => {
          const bus = new RegisterBus()
          const devices = [new Recorder(), new Recorder()]
          devices.forEach((device, index) => {
            bus.claim(gpa(0x1000 + index * 0x100), 0x100, device)
          })
          let floating = 0
          for (const [at, bytes, write] of accesses) {
            const index = Math.floor((at - 0x1000) / 0x100)
            const offset = (at - 0x1000) % 0x100
            const device = at >= 0x1000 && offset + bytes <= 0x100 ? devices[index] : undefined
            if (device === undefined) floating++
            if (write) bus.write(gpa(at), bytes, 5)
            else expect(bus.read(gpa(at), bytes)).toBe(device === undefined ? 2 ** (8 * bytes) - 1 : 7)
            const told = write ? `write ${offset} ${bytes} 5` : `read ${offset} ${bytes}`
            if (device !== undefined) expect(device.seen.at(-1)).toBe(told)
          }
          expect(bus.unclaimed).toBe(floating)
          expect(devices.reduce((sum, device) => sum + device.seen.length, 0)).toBe(
            accesses.length - floating,
          )
        },
      ),
    )
  })

  test.each([
    [0x10ff, 1],
    [0xf01, 0x100],
    [0x1000, 0x100],
    [0xf00, 0x1000],
  ])("lets nobody claim %i, %i bytes, of what is another one's", (base, length) => {
    const bus = new RegisterBus()
    bus.claim(gpa(0x1000), 0x100, new Recorder())
    expect(() => bus.claim(gpa(base), length, new Recorder())).toThrow(/claimed twice/)
  })
})

describe('guest memory of a bare machine', () => {
  test('is handed out aligned, zeroed, without overlap, never at 0, until there is none', () => {
    const ask = fc.tuple(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 0, max: 14 }))
    fc.assert(
      fc.property(fc.array(ask, { maxLength: 30 }), (asks) => {
        const clock = new VirtualClock()
        const guest = new BareGuest(GuestMemory.ofBytes(65_536), clock, new RegisterBus())
        let end = 1
        for (const [length, power] of asks) {
          const before = guest.freeBytes
          try {
            const at = guest.allocate(length, 2 ** power)
            expect(at % 2 ** power).toBe(0)
            expect(at).toBeGreaterThanOrEqual(end)
            end = at + length
            const lent: Uint8Array<ArrayBuffer>[] = []
            expect(guest.memory.lend(at, length, lent)).toBe(true)
            expect(lent.every((view) => view.every((byte) => byte === 0))).toBe(true)
            for (const view of lent) view.fill(1)
          } catch (error) {
            expect(error).toBeInstanceOf(GuestMemoryExhausted)
            expect(guest.freeBytes).toBe(before)
            expect(before).toBeLessThan(length + 2 ** power)
          }
        }
      }),
    )
  })
})

describe('the level-triggered line', () => {
  test('runs its routine in a turn of its own, as long as it is high, and only then', () => {
    const steps = fc.array(fc.constantFrom('raise', 'lower', 'drain'), { maxLength: 40 })
    fc.assert(
      fc.property(steps, fc.integer({ min: 0, max: 3 }), (program, ignored) => {
        const clock = new VirtualClock()
        const line = new LevelLine(clock)
        let high = false
        let expected = 0
        let deaf = 0
        line.connect(() => {
          if (deaf-- > 0) return
          line.lower()
          high = false
        })
        for (const step of program) {
          const before = line.delivered
          if (step === 'raise') {
            line.raise()
            high = true
          } else if (step === 'lower') {
            line.lower()
            high = false
          } else {
            deaf = ignored
            if (high) expected += ignored + 1
            clock.drain()
          }
          if (step !== 'drain') expect(line.delivered).toBe(before)
        }
        expect(line.delivered).toBe(expected)
      }),
    )
  })

  test('keeps a level that was raised before anybody listened', () => {
    const clock = new VirtualClock()
    const line = new LevelLine(clock)
    line.raise()
    clock.drain()
    line.connect(() => line.lower())
    clock.drain()
    expect(line.delivered).toBe(1)
  })

  test('calls a storm what no routine will ever end', () => {
    const clock = new VirtualClock()
    const line = new LevelLine(clock)
    line.connect(() => {})
    line.raise()
    expect(() => clock.drain()).toThrow(/high after/)
  })
})

test('the register counter tells doorbells from interrupt status from the rest, and passes all on', () => {
  const device = new Recorder()
  const counter = new RegisterCounter(device)
  counter.write(Mmio.QueueNotify, 4, 0)
  counter.write(Mmio.QueueNotify, 4, 1)
  expect(counter.read(Mmio.InterruptStatus, 4)).toBe(7)
  counter.write(Mmio.InterruptACK, 4, 1)
  counter.read(Mmio.Status, 4)
  counter.write(Mmio.Status, 4, 3)
  counter.read(Mmio.QueueNotify, 4)
  expect(counter.counts).toEqual({ doorbells: 2, interruptStatus: 2, others: 3 })
  expect(device.seen).toHaveLength(7)
})
