import { describe, expect, it } from 'vitest'
import { APIC_2010 } from '../../hypervisor/apic-profile.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { COST_MODELS, costOf, printCost } from '../../hypervisor/cost-model.ts'
import { ExitCounters } from '../../hypervisor/exit-counters.ts'
import { ExitLog, printEvent } from '../../hypervisor/exit-log.ts'
import { Machine } from '../../hypervisor/machine.ts'
import { gpa } from '../../protocol/memory.ts'

describe('the exit log', () => {
  it('reads like a VMM engineer’s', () => {
    const lines: string[] = []
    const clock = new VirtualClock()
    const trace = new ExitLog(
      (text) => lines.push(text),
      () => clock.now(),
    )
    const machine = new Machine({ clock, profile: APIC_2010, trace })
    machine.map('disk0', gpa(0xd000_0000), 0x1000, { read: () => 0x2a, write() {} })
    let round = 0
    machine.start({
      run(guest) {
        if (round++ === 0) {
          guest.setVector(0x51, () => guest.endOfInterrupt())
          guest.routeLine(3, 0x51, 'edge')
          guest.sti()
          clock.after(12.345, () => machine.line(3).raise())
        } else {
          guest.write(gpa(0xd000_0050), 4, 1)
          guest.read(gpa(0xd000_0060), 2)
          guest.portWrite(0x3f8, 1, 65)
        }
        guest.halt()
      },
    })
    machine.drain()
    const rip = / rip 0x[0-9a-f]+$/
    expect(lines.slice(-11).map((text) => text.replace(rip, ''))).toEqual([
      '[       0.000 µs] exit 12 HLT',
      '[      12.345 µs] wake from HLT',
      '[      12.345 µs] inject interrupt vector 0x51',
      '[      12.345 µs] exit 44 APIC access offset 0xb0 write 4 value 0x0',
      '[      12.345 µs] exit 48 EPT violation gpa 0xd0000050 write 4 value 0x1 qualification 0x182',
      '[      12.345 µs] disk0 write 4 at 0xd0000050 value 0x1',
      '[      12.345 µs] exit 48 EPT violation gpa 0xd0000060 read 2 qualification 0x181',
      '[      12.345 µs] disk0 read 2 at 0xd0000060 value 0x2a',
      '[      12.345 µs] exit 30 I/O port 0x3f8 out 1',
      '[      12.345 µs] nobody write 1 at port 0x3f8 value 0x41',
      '[      12.345 µs] exit 12 HLT',
    ])
    expect(lines.every((text) => !text.includes(' exit ') || rip.test(text))).toBe(true)
  })

  it('prints every other event by its fields', () => {
    expect(printEvent(1, { name: 'doorbell', device: 'disk0', queue: 2 })).toBe(
      '[       1.000 µs] doorbell device disk0 queue 2',
    )
    expect(printEvent(0, { name: 'inject', info: 0x202, again: true })).toBe(
      '[       0.000 µs] inject again NMI vector 0x2',
    )
    const failed = {
      name: 'exit',
      reason: 0x8000_0021,
      qualification: 4,
      rip: 16,
      gpa: null,
      width: null,
      value: null,
    }
    expect(printEvent(0, failed as Parameters<typeof printEvent>[1])).toBe(
      '[       0.000 µs] exit 33 invalid guest state (entry failed) qualification 0x4 rip 0x10',
    )
  })
})

describe('the cost model', () => {
  it('is a sum over counted exits, says whose numbers it has, and that nothing was measured', () => {
    const counters = new ExitCounters()
    counters.byReason[48] = 3
    counters.byReason[12] = 1
    const model = { ...COST_MODELS.westmere, extraCycles: { 48: 100 }, deviceCycles: 1000 }
    const cost = costOf(counters, model, 2)
    expect(cost.totalCycles).toBe(3 * (761 + 100) + 761 + 2 * 1000)
    expect(cost.totalUs).toBeCloseTo(cost.totalCycles / 3000, 9)
    expect(cost.lines.map(({ reason, count }) => [reason, count])).toEqual([
      [12, 1],
      [48, 3],
    ])
    expect(printCost(cost)).toMatch(/EPT violation[\s\S]*model Westmere, not measured.*USENIX ATC 2012/)
  })
})
