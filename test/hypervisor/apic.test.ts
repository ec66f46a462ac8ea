import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ApicPage, ApicRegister } from '../../hypervisor/apic-page.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { InterruptController, LINES, Redirection } from '../../hypervisor/interrupt.ts'
import { IoApic, IoApicIndex, IoApicRegister } from '../../hypervisor/io-apic.ts'
import { LocalApic } from '../../hypervisor/local-apic.ts'
import { PostedInterrupts } from '../../hypervisor/posted-interrupt.ts'
import { VectorBits } from '../../hypervisor/vector-bits.ts'
import type { Plain } from '../../protocol/platform.ts'
import { Window } from '../../protocol/window.ts'

function controller() {
  const heard: string[] = []
  const sink = {
    accept: (vector: number, level: boolean) => void heard.push(`${vector}${level ? ' level' : ''}`),
    nmi: () => void heard.push('nmi'),
  }
  return { heard, interrupts: new InterruptController(sink) }
}

const line = fc.nat(2)
const MODES = [0, 1, 2, 4, 5, 7]
const acts = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('raise' as const), line }),
    fc.record({ kind: fc.constant('lower' as const), line }),
    fc.record({
      kind: fc.constant('entry' as const),
      line,
      vector: fc.constantFrom(0x31, 0x32),
      mode: fc.constantFrom(...MODES),
      level: fc.boolean(),
      masked: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('eoi' as const), vector: fc.constantFrom(0x31, 0x32) }),
    fc.record({ kind: fc.constant('destination' as const), line, apic: fc.constantFrom(0, 1, 0xff) }),
  ),
  { maxLength: 50 },
)

describe('the lines of the interrupt controller', () => {
  it('interrupt as the 82093AA says, whatever is written to their entries', () => {
    fc.assert(
      fc.property(acts, (script) => {
        const { heard, interrupts } = controller()
        const registers = new IoApic(interrupts, () => {})
        const model = Array.from({ length: 3 }, () => ({
          high: false,
          vector: 0,
          mode: 0,
          level: false,
          masked: true,
          waits: false,
          apic: 0,
        }))
        const wanted: string[] = []
        const deliver = (one: (typeof model)[number]): void => {
          if (one.apic === 1) return
          if (one.mode === 4) wanted.push('nmi')
          else if (one.mode < 2) wanted.push(`${one.vector}${one.level ? ' level' : ''}`)
        }
        const assert = (one: (typeof model)[number]): void => {
          if (!one.level || !one.high || one.masked || one.waits || one.apic === 1) return
          one.waits = true
          deliver(one)
        }
        for (const act of script) {
          if (act.kind === 'eoi') {
            interrupts.endOfInterrupt(act.vector)
            for (const one of model) {
              if (one.vector !== act.vector || !one.waits) continue
              one.waits = false
              assert(one)
            }
            continue
          }
          const one = model[act.line]
          if (one === undefined) continue
          const put = (index: number, value: number): void => {
            registers.write(IoApicRegister.SELECT, 4, IoApicIndex.REDIRECTION + act.line * 2 + index)
            registers.write(IoApicRegister.WINDOW, 4, value)
          }
          if (act.kind === 'raise') {
            interrupts.line(act.line).raise()
            const rises = !one.high
            one.high = true
            if (one.level) assert(one)
            else if (rises && !one.masked) deliver(one)
          } else if (act.kind === 'lower') {
            interrupts.line(act.line).lower()
            one.high = false
          } else if (act.kind === 'destination') {
            put(1, act.apic * 0x100_0000)
            one.apic = act.apic
          } else {
            const { vector, mode, level, masked } = act
            // Remote IRR is read-only: written as 1 on purpose.
            const bits = (level ? Redirection.LEVEL : 0) | (masked ? Redirection.MASKED : 0)
            put(0, vector | (mode << 8) | bits | Redirection.REMOTE_IRR)
            Object.assign(one, { vector, mode, level, masked })
            one.waits = one.waits && level
            assert(one)
          }
          registers.write(IoApicRegister.SELECT, 4, IoApicIndex.REDIRECTION + act.line * 2)
          const read = registers.read(IoApicRegister.WINDOW, 4)
          expect((read & Redirection.REMOTE_IRR) !== 0).toBe(one.waits)
          expect((read & Redirection.MASKED) !== 0).toBe(one.masked)
        }
        expect(heard).toEqual(wanted)
        expect([0, 1, 2].map((number) => interrupts.isHigh(number))).toEqual(model.map(({ high }) => high))
      }),
      { numRuns: 1000 },
    )
  })

  it('number 24, and another is our own mistake', () => {
    const { interrupts } = controller()
    const registers = new IoApic(interrupts, () => {})
    registers.write(IoApicRegister.SELECT, 4, IoApicIndex.VERSION)
    expect(registers.read(IoApicRegister.WINDOW, 4)).toBe(0x17_0020)
    expect(() => interrupts.line(LINES)).toThrow(RangeError)
    expect(() => interrupts.line(-1)).toThrow(RangeError)
  })

  it('are told apart from messages by the address', () => {
    const { heard, interrupts } = controller()
    expect(interrupts.message(0xfee0_0000, 0x41)).toBe(true)
    expect(interrupts.message(0xfeef_f000, 0x8042)).toBe(true)
    expect(interrupts.message(0xfee0_0000, 0x400)).toBe(true)
    expect(interrupts.message(0xfee0_1000, 0x43)).toBe(false)
    expect(interrupts.message(0xfed0_0000, 0x44)).toBe(false)
    expect(heard).toEqual(['65', '66 level', 'nmi'])
  })

  it('keep their state as data, and refuse damaged state', () => {
    const { interrupts } = controller()
    interrupts.setEntry(3, 0x51 | Redirection.LEVEL)
    interrupts.line(3).raise()
    const state = interrupts.save() as Record<string, Plain>
    const { heard, interrupts: other } = controller()
    expect(other.load(state)).toBeNull()
    expect(other.save()).toEqual(state)
    other.endOfInterrupt(0x51)
    expect(heard).toEqual(['81 level'])
    const low = [...(state['low'] as number[])]
    low[3] = 1 << 20
    for (const bad of [null, { ...state, low }, { ...state, high: [] }, { ...state, version: 9 }]) {
      expect(other.load(bad)).toEqual(expect.any(String))
      expect(other.isHigh(3)).toBe(true)
    }
  })
})

function localApic() {
  const page = new ApicPage(new Window(new Uint8Array(4096)))
  page.reset()
  const heard: string[] = []
  const clock = new VirtualClock()
  const apic: LocalApic = new LocalApic({
    page,
    ticksPerUs: 1000,
    timer: clock.timer('timer', () => apic.expired()),
    listener: {
      request: (vector) => page.requested.set(vector),
      ended: (vector) => void heard.push(`ended ${vector}`),
      nmi: () => void heard.push('nmi'),
    },
  })
  return { apic, page, clock, heard }
}

describe('the local APIC', () => {
  it('answers an acknowledge with nothing to deliver by the spurious vector, which is not in service', () => {
    const { apic, page } = localApic()
    apic.accept(0x51, false)
    apic.write(ApicRegister.TPR, 0x60)
    expect(apic.acknowledge()).toBe(0xff)
    expect(page.inService.highest()).toBe(-1)
    apic.write(ApicRegister.TPR, 0x4f)
    expect(apic.acknowledge()).toBe(0x51)
    expect([page.inService.highest(), page.requested.highest()]).toEqual([0x51, -1])
    expect(apic.read(ApicRegister.PPR)).toBe(0x50)
  })

  it('accepts nothing while it is disabled, and notes a vector below 16 as an error', () => {
    const { apic, page } = localApic()
    apic.accept(5, false)
    expect([page.get(ApicRegister.ESR), apic.deliverable()]).toEqual([1 << 6, -1])
    apic.write(ApicRegister.ICR_LOW, 0x4_0003)
    expect(page.get(ApicRegister.ESR)).toBe((1 << 6) | (1 << 5))
    apic.write(ApicRegister.ESR, 0)
    expect(page.get(ApicRegister.ESR)).toBe(0)
    apic.write(ApicRegister.SPURIOUS, 0xff)
    apic.accept(0x51, false)
    expect(apic.deliverable()).toBe(-1)
  })

  it('ends the highest vector in service, and tells only of level-triggered ones', () => {
    const { apic, heard } = localApic()
    apic.accept(0x31, true)
    apic.acknowledge()
    apic.accept(0x51, false)
    apic.acknowledge()
    apic.endOfInterrupt()
    expect(heard).toEqual([])
    apic.endOfInterrupt()
    expect(heard).toEqual(['ended 49'])
    apic.endOfInterrupt()
    expect(heard).toEqual(['ended 49'])
  })

  it('sends to itself and to everybody, which is itself, and to nobody else', () => {
    const { apic, page, heard } = localApic()
    const send = (low: number, destination = 0): number => {
      page.requested.clearAll()
      apic.write(ApicRegister.ICR_HIGH, destination * 0x100_0000)
      apic.write(ApicRegister.ICR_LOW, low)
      return page.requested.highest()
    }
    expect([
      send(0x4_0041),
      send(0x8_0042),
      send(0xc_0043),
      send(0x44),
      send(0x45, 3),
      send(0x46, 0xff),
    ]).toEqual([0x41, 0x42, -1, 0x44, -1, 0x46])
    expect(send(0x4_0400)).toBe(-1)
    expect(heard).toEqual(['nmi'])
  })

  it('counts to a TSC deadline and in no other mode, and a change of mode disarms', () => {
    const { apic, page, clock } = localApic()
    apic.setDeadline(5000)
    expect(apic.deadline).toBe(0)
    apic.write(ApicRegister.LVT_TIMER, 0x4_0041)
    apic.setDeadline(5000)
    expect(apic.deadline).toBe(5000)
    apic.write(ApicRegister.LVT_TIMER, 0x2_0041)
    clock.drain()
    expect(page.requested.highest()).toBe(-1)
    apic.write(ApicRegister.LVT_TIMER, 0x5_0041)
    apic.setDeadline(6000)
    clock.drain()
    expect([clock.now(), page.requested.highest()]).toEqual([6, -1])
    apic.write(ApicRegister.LVT_TIMER, 0x4_0041)
    apic.setDeadline(7000)
    apic.setDeadline(0)
    clock.drain()
    expect([clock.now(), page.requested.highest()]).toEqual([6, -1])
    apic.setDeadline(1)
    clock.drain()
    expect([clock.now(), page.requested.highest()]).toEqual([6, 0x41])
  })

  it('lets nobody write what it alone keeps', () => {
    const { apic, page } = localApic()
    const kept = [
      ApicRegister.VERSION,
      ApicRegister.ISR,
      ApicRegister.TMR,
      ApicRegister.IRR,
      ApicRegister.IRR + 0x70,
    ]
    const before = kept.map((register) => page.get(register))
    for (const register of kept) apic.write(register, 0xffff_ffff)
    apic.write(ApicRegister.TPR + 4, 0xff)
    expect(kept.map((register) => page.get(register))).toEqual(before)
    expect(apic.read(ApicRegister.TPR + 4)).toBe(0)
    apic.write(ApicRegister.LVT_LINT0, 0xffff_ffff)
    expect(page.get(ApicRegister.LVT_LINT0)).toBe(0x7_a7ff)
  })
})

describe('256 bits of vectors', () => {
  it('are a set with a highest member', () => {
    const changes = fc.array(fc.tuple(fc.nat(255), fc.boolean()))
    fc.assert(
      fc.property(changes, changes, fc.constantFrom(4, 16), (first, second, stride) => {
        const make = (list: readonly (readonly [number, boolean])[]) => {
          const bits = new VectorBits(new Window(new Uint8Array(256)), 16, stride)
          const set = new Set<number>()
          for (const [vector, on] of list) {
            if (on) bits.set(vector)
            else bits.clear(vector)
            if (on) set.add(vector)
            else set.delete(vector)
          }
          return { bits, set }
        }
        const from = make(first)
        const into = make(second)
        expect(from.bits.drainTo(into.bits)).toBe(from.set.size > 0)
        const union = new Set([...from.set, ...into.set])
        for (let vector = 0; vector < 256; vector++) expect(into.bits.has(vector)).toBe(union.has(vector))
        expect(into.bits.highest()).toBe(Math.max(-1, ...union))
        expect(from.bits.highest()).toBe(-1)
      }),
    )
  })
})

describe('a posted-interrupt descriptor', () => {
  it('asks for one notification until it is taken, and for none while they are suppressed', () => {
    const bytes = new Uint8Array(64)
    const posted = new PostedInterrupts(new Window(bytes))
    const into = new VectorBits(new Window(new Uint8Array(64)), 0, 4)
    expect([posted.post(0x51), posted.post(0x31), posted.outstanding]).toEqual([true, false, true])
    expect(posted.take(into)).toBe(true)
    expect([posted.outstanding, into.has(0x31), into.highest()]).toEqual([false, true, 0x51])
    expect(posted.take(into)).toBe(false)
    bytes[32] = 2
    expect([posted.post(0x61), posted.outstanding]).toEqual([false, false])
    expect(posted.take(into)).toBe(true)
    expect([bytes[32], into.highest()]).toEqual([2, 0x61])
  })
})
