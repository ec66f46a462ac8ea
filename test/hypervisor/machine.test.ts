import { describe, expect, it } from 'vitest'
import { APIC_2006, APIC_2010, APICV } from '../../hypervisor/apic-profile.ts'
import { Machine, type MachineOptions } from '../../hypervisor/machine.ts'
import { FIRMWARE_BASE } from '../../hypervisor/machine-memory.ts'
import { ExitReason } from '../../hypervisor/vtx/control.ts'
import { Field } from '../../hypervisor/vtx/field.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { AccessWidth, RegisterDevice } from '../../protocol/platform.ts'
import type { GuestProcessor } from '../../protocol/processor.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { Cursor, type FieldAt } from '../../protocol/window.ts'

const DEVICE = gpa(0xd000_0000)
const DOORBELL = gpa(0xd000_0050)
const WORD = 0 as FieldAt<'le32'>
const INDEX = 0 as FieldAt<'le16'>
const LINE = 5
const VECTOR = 0x51
const PROFILES = [APIC_2006, APIC_2010, APICV]

/** Counts its doorbells and raises a line some turns later, as a device would. */
class Device implements RegisterDevice {
  readonly writes: number[] = []
  status = 0
  read(offset: number, _width: AccessWidth): number {
    return offset === 0x60 ? this.status : 0x74726976
  }
  write(offset: number, _width: AccessWidth, value: number): void {
    if (offset === 0x50) this.writes.push(value)
  }
}

interface Rig {
  readonly machine: Machine
  readonly device: Device
  readonly events: TraceEvent[]
}

function rig(options: MachineOptions = {}): Rig {
  const events: TraceEvent[] = []
  const machine = new Machine({ trace: { on: true, emit: (event) => events.push(event) }, ...options })
  const device = new Device()
  machine.map('device', DEVICE, 0x1000, device)
  return { machine, device, events }
}

/** Runs a function once as a guest, then halts. */
function once(machine: Machine, body: (guest: GuestProcessor) => void): void {
  let ran = false
  machine.start({
    run(guest) {
      if (!ran) {
        ran = true
        body(guest)
      }
      guest.halt()
    },
  })
  machine.drain()
}

describe.each(PROFILES)('a machine of profile $name', (profile) => {
  it('brings a register access to its device and its answer back', () => {
    const { machine, device } = rig({ profile })
    const seen: number[] = []
    once(machine, (guest) => {
      guest.write(DOORBELL, 4, 7)
      seen.push(guest.read(DEVICE, 4), guest.read(gpa(0xe000_0000), 2), guest.portRead(0x70, 1))
    })
    expect(device.writes).toEqual([7])
    expect(seen).toEqual([0x74726976, 0xffff, 0xff])
    expect(machine.counters.of(ExitReason.EPT_VIOLATION)).toBe(3)
    expect([machine.bus.unclaimed, machine.ports.unclaimed]).toEqual([1, 1])
    expect(machine.halted).toBe(true)
  })

  it('wakes a halted guest by a line and serves it until the device lowers it', () => {
    const { machine } = rig({ profile })
    let served = 0
    const line = machine.line(LINE)
    once(machine, (guest) => {
      guest.setVector(VECTOR, () => {
        served++
        if (served === 3) line.lower()
        guest.endOfInterrupt()
      })
      guest.routeLine(LINE, VECTOR, 'level')
      guest.sti()
      machine.clock.after(10, () => line.raise())
    })
    expect(served).toBe(3)
    expect(machine.counters.wakeups).toBeGreaterThan(0)
    expect(machine.clock.now()).toBe(10)
  })

  it('keeps an interrupt back below the task priority, and delivers it when that falls', () => {
    const { machine } = rig({ profile })
    const order: string[] = []
    once(machine, (guest) => {
      guest.setVector(VECTOR, () => {
        order.push('served')
        guest.endOfInterrupt()
      })
      guest.routeLine(LINE, VECTOR, 'edge')
      guest.sti()
      guest.setTaskPriority(5)
      machine.line(LINE).raise()
      guest.boundary()
      guest.read(DEVICE, 4)
      order.push('masked')
      guest.setTaskPriority(4)
      guest.boundary()
      order.push('after')
      expect(guest.taskPriority).toBe(4)
    })
    expect(order).toEqual(['masked', 'served', 'after'])
  })

  it('holds an interrupt while RFLAGS.IF is clear, and through the operation after STI', () => {
    const { machine } = rig({ profile })
    const order: string[] = []
    once(machine, (guest) => {
      guest.setVector(VECTOR, () => {
        order.push('served')
        expect(guest.interruptsEnabled).toBe(false)
        guest.endOfInterrupt()
      })
      guest.routeLine(LINE, VECTOR, 'edge')
      machine.line(LINE).raise()
      guest.boundary()
      guest.read(DEVICE, 4)
      order.push('off')
      guest.sti()
      guest.write(DOORBELL, 4, 1)
      order.push('rung')
      guest.boundary()
      expect(guest.interruptsEnabled).toBe(true)
    })
    expect(order.slice(0, 1)).toEqual(['off'])
    expect(order).toContain('served')
  })

  it('does not sleep through an interrupt that comes between the decision to sleep and HLT', () => {
    const { machine } = rig({ profile })
    let served = 0
    let runs = 0
    machine.start({
      run(guest) {
        if (runs++ === 0) {
          guest.setVector(VECTOR, () => {
            served++
            guest.endOfInterrupt()
          })
          guest.routeLine(LINE, VECTOR, 'edge')
          machine.line(LINE).raise()
          guest.sti()
        }
        guest.halt()
      },
    })
    machine.drain()
    expect([served, runs]).toEqual([1, 2])
    // What was to make the running guest exit is over once it has.
    expect(machine.counters.of(ExitReason.EXTERNAL_INTERRUPT)).toBeLessThanOrEqual(1)
    expect(machine.counters.of(ExitReason.HLT)).toBe(2)
  })

  it('is made to exit once for what comes while it runs, and not again for having halted', () => {
    const { machine } = rig({ profile })
    let runs = 0
    machine.start({
      run(guest) {
        if (runs++ === 0) {
          guest.sti()
          guest.boundary()
          machine.raiseNmi()
        }
        guest.setVector(2, () => {})
        guest.halt()
      },
    })
    machine.drain()
    expect(runs).toBe(2)
    expect(machine.counters.of(ExitReason.EXTERNAL_INTERRUPT)).toBe(0)
  })

  it('fires the timer of the processor at its time, and not once it is disarmed', () => {
    const { machine } = rig({ profile })
    const times: number[] = []
    once(machine, (guest) => {
      guest.setVector(0x40, () => {
        times.push(guest.now())
        if (times.length < 3) guest.armTimer(guest.now() + 100, 0x40)
        else {
          guest.armTimer(guest.now() + 5, 0x40)
          guest.armTimer(null, 0x40)
        }
        guest.endOfInterrupt()
      })
      guest.sti()
      guest.armTimer(50, 0x40)
    })
    expect(times).toEqual([50, 150, 250])
  })

  it('delivers an NMI to a halted guest with interrupts off, and one after the other', () => {
    const { machine } = rig({ profile })
    const order: string[] = []
    once(machine, (guest) => {
      guest.setVector(2, () => {
        order.push('in')
        if (order.length === 1) {
          machine.raiseNmi()
          guest.read(DEVICE, 4)
          guest.boundary()
        }
        order.push('out')
      })
      machine.clock.after(1, () => machine.raiseNmi())
    })
    expect(order).toEqual(['in', 'out', 'in', 'out'])
  })

  it.each([
    ['the interrupt table', FIRMWARE_BASE],
    ['the stack', gpa(FIRMWARE_BASE + 4096)],
  ])('injects again what an exit interrupted when it reached for %s', (_what, page) => {
    const { machine, events } = rig({ profile })
    let served = 0
    once(machine, (guest) => {
      guest.setVector(VECTOR, () => {
        served++
        guest.endOfInterrupt()
      })
      guest.routeLine(LINE, VECTOR, 'edge')
      guest.sti()
      machine.clock.after(1, () => {
        machine.unmap(page, 4096)
        machine.line(LINE).raise()
      })
    })
    expect(served).toBe(1)
    expect(machine.counters.injectionsAgain).toBe(1)
    expect(events).toContainEqual({ name: 'inject', info: VECTOR, again: true })
    expect(exits(events).filter(({ reason }) => reason === ExitReason.EPT_VIOLATION)).toContainEqual(
      expect.objectContaining({ width: null, value: null }),
    )
  })
})

function exits(events: readonly TraceEvent[]) {
  return events.flatMap((event) => (event.name === 'exit' ? [event] : []))
}

describe('memory the guest is not given', () => {
  it('exits with reason 48 when its page was taken, and nothing else goes wrong', () => {
    const { machine, events } = rig()
    const at = gpa(0x12_3000)
    const read: number[] = []
    const window = machine.processor.guest.memory.window(at, 4096, 4096)
    window?.putLe32(WORD, 0x1111)
    machine.unmap(at, 4096)
    once(machine, (guest) => {
      read.push(window?.le32(WORD) ?? -1, guest.read(gpa(at + 8), 4))
      window?.putLe32(WORD, 0x2222)
      read.push(window?.le32(WORD) ?? -1)
    })
    expect(read).toEqual([0x1111, 0, 0x2222])
    const violations = exits(events).filter(({ reason }) => reason === ExitReason.EPT_VIOLATION)
    // A data read, linear address valid, of the final translation, of a page without any right.
    expect(violations.map(({ gpa: address, qualification }) => [address, qualification])).toEqual([
      [at, 0x181],
    ])
    expect(machine.bus.unclaimed).toBe(0)
    expect(machine.memory.ram.window(at, 4, 4)?.le32(WORD)).toBe(0x2222)
  })

  it('tells a write from a read in the qualification, and the address to the byte', () => {
    const { machine, events } = rig()
    machine.unmap(gpa(0x12_3000), 4096)
    once(machine, (guest) => guest.write(gpa(0x12_3456), 1, 9))
    const [first] = exits(events)
    expect([first?.reason, first?.qualification, first?.gpa]).toEqual([48, 0x182, 0x12_3456])
    expect(machine.memory.ram.window(gpa(0x12_3456), 1, 1)?.u8(0 as FieldAt<'u8'>)).toBe(9)
  })

  it('exits with reason 49 when it is writable and executable and not readable', () => {
    const { machine, events, device } = rig()
    machine.misconfigure(gpa(0x12_3000), 4096)
    machine.misconfigure(DEVICE, 4096)
    once(machine, (guest) => {
      guest.write(gpa(0x12_3008), 4, 5)
      guest.write(DOORBELL, 4, 6)
    })
    expect(exits(events).map(({ reason, gpa: at }) => [reason, at])).toEqual([
      [ExitReason.EPT_MISCONFIGURATION, 0x12_3008],
      [ExitReason.EPT_MISCONFIGURATION, DOORBELL],
      [ExitReason.HLT, null],
    ])
    expect(device.writes).toEqual([6])
    expect(machine.memory.ram.window(gpa(0x12_3008), 4, 4)?.le32(WORD)).toBe(5)
  })

  it('floats when whoever is asked does not give it back', () => {
    const asked: [number, boolean][] = []
    const { machine } = rig({
      ramFault: (at, write) => {
        asked.push([at, write])
        return false
      },
    })
    machine.unmap(gpa(0x12_3000), 4096)
    const read: number[] = []
    once(machine, (guest) => {
      guest.write(gpa(0x12_3000), 4, 1)
      read.push(guest.read(gpa(0x12_3000), 4))
    })
    expect(asked).toEqual([
      [0x12_3000, true],
      [0x12_3000, false],
    ])
    expect(read).toEqual([0xffff_ffff])
    expect(machine.bus.unclaimed).toBe(2)
  })

  it('does not exit where a doorbell page is plain RAM, and exits again when it is not', () => {
    const { machine, device } = rig()
    machine.coverWithRam(DOORBELL)
    once(machine, (guest) => {
      guest.write(DOORBELL, 4, 1)
      expect(guest.read(DOORBELL, 4)).toBe(1)
    })
    expect(device.writes).toEqual([])
    expect(machine.counters.of(ExitReason.EPT_VIOLATION)).toBe(0)
    expect(machine.uncover(DOORBELL)).toBe(true)
    expect(machine.uncover(DOORBELL)).toBe(false)
    once(machine, (guest) => guest.write(DOORBELL, 4, 2))
    expect(device.writes).toEqual([2])
    expect(machine.counters.of(ExitReason.EPT_VIOLATION)).toBe(1)
  })
})

describe('the entry interruption field', () => {
  it('refuses an external interrupt while RFLAGS.IF is clear, with exit 33', () => {
    const { machine } = rig()
    machine.start({ run: (guest) => guest.halt() })
    machine.processor.vmwrite(Field.entryInterruptionInfo, 0x8000_0051)
    expect(() => machine.drain()).toThrow(/invalid guest state, qualification 0/)
    expect(machine.processor.vmread(Field.exitReason)).toBe(0x8000_0021)
    expect(machine.counters.of(ExitReason.INVALID_GUEST_STATE)).toBe(1)
  })
})

describe('guest RAM that another process has too', () => {
  it.each([true, false])('makes windows exchange indices atomically where it is shared: %s', (shared) => {
    const ram = new GuestMemory([{ base: gpa(0), bytes: new Uint8Array(4 * 2 ** 20), shared }])
    const { machine } = rig({ ram })
    const { memory } = machine.processor.guest
    const cursor = new Cursor()
    const page = gpa(0x3000)
    expect(memory.window(page, 4096, 2)?.atomic).toBe(shared)
    expect(memory.point(cursor, page, 4096) && cursor.window.atomic).toBe(shared)
    // Taken away and given back, a window is what it was.
    machine.unmap(page, 4096)
    machine.remap(page, 4096)
    expect(cursor.window.loadIndex(INDEX, cursor.base)).toBe(0)
    expect(cursor.window.atomic).toBe(shared)
    expect(machine.memory.physical.window(gpa(2 ** 32), 4096, 2)?.atomic).toBe(shared)
  })
})
