import { describe, expect, it } from 'vitest'
import { APIC_2006, APIC_2010, APICV } from '../../hypervisor/apic-profile.ts'
import { LOCAL_APIC_BASE } from '../../hypervisor/guest-apic.ts'
import { Machine, type MachineOptions } from '../../hypervisor/machine.ts'
import { ExitReason } from '../../hypervisor/vtx/control.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { GuestProcessor } from '../../protocol/processor.ts'
import type { FieldAt } from '../../protocol/window.ts'

const PROFILES = [APIC_2006, APIC_2010, APICV]
const RAM_BYTES = 2 ** 18

function guestOf(
  body: (guest: GuestProcessor, machine: Machine) => void,
  options: MachineOptions = {},
): Machine {
  const machine = new Machine({ ram: GuestMemory.ofBytes(RAM_BYTES), ...options })
  let ran = false
  machine.start({
    run(guest) {
      if (!ran) {
        ran = true
        body(guest, machine)
      }
      guest.halt()
    },
  })
  machine.drain()
  return machine
}

describe('an instruction that exits', () => {
  it('of strings moves every item between port and RAM, over as many exits as it takes', () => {
    const written: number[] = []
    let next = 0
    const machine = new Machine({ ram: GuestMemory.ofBytes(RAM_BYTES) })
    const port = {
      read: () => next++ & 0xffff,
      write: (_at: number, _width: number, value: number) => void written.push(value),
    }
    machine.ports.map('ide', 0x1f0, 8, port)
    let ran = false
    machine.start({
      run(guest) {
        if (!ran) {
          ran = true
          guest.portReadString(0x1f0, 2, gpa(0x1000), 10_000)
          guest.portWriteString(0x1f0, 2, gpa(0x1002), 9_999)
          guest.portReadString(0x1f0, 2, gpa(0x1000), 0)
        }
        guest.halt()
      },
    })
    machine.drain()
    expect(next).toBe(10_000)
    expect(written).toEqual(Array.from({ length: 9_999 }, (_, index) => index + 1))
    // 4096 items an exit: three for each, and none for no item.
    expect(machine.counters.of(ExitReason.IO)).toBe(6)
    const window = machine.memory.ram.window(gpa(0x1000), 20_002, 2)
    expect([window?.le16(19_998 as FieldAt<'le16'>), window?.le16(20_000 as FieldAt<'le16'>)]).toEqual([
      9_999, 0,
    ])
  })

  it('at a port cuts what it stores to its width, and keeps the rest of EAX at a load', () => {
    const seen: number[] = []
    const port = {
      read: () => 0xab,
      write: (_at: number, _width: number, value: number) => void seen.push(value),
    }
    const machine = new Machine({ ram: GuestMemory.ofBytes(RAM_BYTES) })
    machine.ports.map('uart', 0x3f8, 8, port)
    machine.start({
      run(guest) {
        if (seen.length === 0) {
          guest.portWrite(0x3f8, 1, 0x1234_5678)
          guest.portWrite(0x3f8, 2, 0x1234_5678)
          guest.portWrite(0x3f8, 4, 0x1234_5678)
          expect(guest.portRead(0x3f8, 1)).toBe(0xab)
          expect(machine.processor.registers.low(0)).toBe(0x1234_56ab)
        }
        guest.halt()
      },
    })
    machine.drain()
    expect(seen).toEqual([0x78, 0x5678, 0x1234_5678])
  })

  it('CPUID names the hypervisor, as hypervisors do', () => {
    guestOf((guest) => {
      const { eax, ebx, ecx, edx } = guest.cpuid(0x4000_0000, 0)
      const name = [ebx, ecx, edx].map((word) =>
        String.fromCharCode(...new Uint8Array(Uint32Array.of(word).buffer)),
      )
      expect([eax, name.join('')]).toEqual([0x4000_0010, 'ParavaneHv\0\0'])
      const { ecx: features } = guest.cpuid(1, 0)
      expect(features >>> 31).toBe(1)
      expect(guest.cpuid(0x4000_0010, 0).eax).toBe(1_000_000)
      expect(guest.cpuid(0x1234, 0)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 })
    })
  })

  it('VMCALL reaches whoever serves it, and nobody by default', () => {
    const hypercall = (number: bigint, first: bigint, second: bigint): bigint => number + first * second
    guestOf((guest) => expect(guest.vmcall(1n, 2n ** 40n, 3n)).toBe(3n * 2n ** 40n + 1n), { hypercall })
    guestOf((guest) => expect(guest.vmcall(1n, 0n, 0n)).toBe(2n ** 64n - 1000n))
  })

  it('of the TSC deadline reads back what was armed, and a register that is not there faults', () => {
    const faults: number[] = []
    const machine = guestOf((guest) => {
      guest.armTimer(50, 0x40)
      expect(guest.readMsr(0x6e0)).toBe(50_000n)
      guest.armTimer(null, 0x40)
      expect(guest.readMsr(0x6e0)).toBe(0n)
      guest.setVector(13, () => {
        faults.push(13)
        throw new Error('enough')
      })
      expect(() => guest.readMsr(0x1234_5678)).toThrow('enough')
    })
    expect(faults).toEqual([13])
    // A register beyond what the bitmap covers always exits; it is root software that has it fault.
    expect(machine.counters.of(ExitReason.RDMSR)).toBe(3)
  })

  it.each(PROFILES)('of the task priority faults above 15 on profile $name', (profile) => {
    const faults: number[] = []
    guestOf(
      (guest) => {
        guest.setVector(13, () => {
          faults.push(13)
          throw new Error('enough')
        })
        expect(() => guest.setTaskPriority(16)).toThrow('enough')
      },
      { profile },
    )
    expect(faults).toEqual([13])
  })
})

/** Registers of the APIC page and whether APIC-register virtualization takes their reads and writes (30.4). */
const REGISTERS: readonly (readonly [number, boolean, boolean])[] = [
  [0x020, true, true],
  [0x030, true, false],
  [0x080, true, true],
  [0x090, false, false],
  [0x0a0, false, false],
  [0x0d0, true, true],
  [0x0e0, true, true],
  [0x0f0, true, true],
  [0x100, true, false],
  [0x1f0, true, false],
  [0x270, true, false],
  [0x280, true, true],
  [0x310, true, true],
  [0x320, true, true],
  [0x380, true, true],
  [0x390, false, false],
  [0x3e0, true, true],
]

describe('the APIC-access page', () => {
  it.each(REGISTERS)(
    'at offset %i is read and written without reason 44 as the controls say',
    (offset, reads, writes) => {
      let ends = 0
      const exits = (profile: typeof APICV, access: (guest: GuestProcessor) => void): number[] => {
        const { counters } = guestOf((guest) => access(guest), { profile })
        ends += counters.endOfInterrupts
        return counters
          .exits()
          .map(({ reason }) => reason)
          .filter((reason) => reason !== ExitReason.HLT)
      }
      const at = gpa(LOCAL_APIC_BASE + offset)
      const load = (guest: GuestProcessor) => void guest.read(at, 4)
      const store = (guest: GuestProcessor) => guest.write(at, 4, offset === 0xf0 ? 0x1ff : 0)
      expect(exits(APICV, load)).toEqual(reads ? [] : [ExitReason.APIC_ACCESS])
      const silent = [0x080, 0x310].includes(offset)
      expect(exits(APICV, store)).toEqual(
        writes ? (silent ? [] : [ExitReason.APIC_WRITE]) : [ExitReason.APIC_ACCESS],
      )
      expect(exits(APIC_2010, load)).toEqual(offset === 0x80 ? [] : [ExitReason.APIC_ACCESS])
      expect(exits(APIC_2010, store)).toEqual(offset === 0x80 ? [] : [ExitReason.APIC_ACCESS])
      expect(exits(APIC_2006, load)).toEqual([ExitReason.APIC_ACCESS])
      // None of them is the EOI register.
      expect(ends).toBe(0)
    },
  )

  it.each(PROFILES)('counts what ends an interrupt where that exits, on profile $name', (profile) => {
    const { counters } = guestOf(
      (guest) => {
        guest.write(gpa(LOCAL_APIC_BASE + 0xb0), 4, 0)
        guest.read(gpa(LOCAL_APIC_BASE + 0xb0), 4)
        guest.write(gpa(LOCAL_APIC_BASE + 0xb8), 4, 0)
      },
      { profile },
    )
    expect(counters.endOfInterrupts).toBe(profile.virtualInterrupts ? 0 : 1)
  })

  it.each(PROFILES)(
    'exits for what is no whole register, and nothing comes of it, on profile $name',
    (profile) => {
      const machine = guestOf(
        (guest) => {
          guest.setTaskPriority(7)
          guest.write(gpa(LOCAL_APIC_BASE + 0x80), 8, 0xff)
          guest.write(gpa(LOCAL_APIC_BASE + 0x84), 4, 0xff)
          expect(guest.read(gpa(LOCAL_APIC_BASE + 0x80), 8)).toBe(0)
          expect(guest.read(gpa(LOCAL_APIC_BASE + 0x8c), 4)).toBe(0)
          expect(guest.taskPriority).toBe(7)
        },
        { profile },
      )
      expect(machine.counters.of(ExitReason.APIC_ACCESS)).toBe(4)
    },
  )

  it.each(PROFILES)('shows one task priority to CR8 and to the register, on profile $name', (profile) => {
    guestOf(
      (guest) => {
        guest.setTaskPriority(7)
        expect(guest.read(gpa(LOCAL_APIC_BASE + 0x80), 4)).toBe(0x70)
        guest.write(gpa(LOCAL_APIC_BASE + 0x80), 4, 0x35)
        expect(guest.taskPriority).toBe(3)
        // Accesses that straddle a register exit on every profile, and do nothing.
        expect(guest.read(gpa(LOCAL_APIC_BASE + 0x82), 4)).toBe(0)
        guest.write(gpa(LOCAL_APIC_BASE + 0x84), 4, 0xff)
        expect(guest.taskPriority).toBe(3)
      },
      { profile },
    )
  })
})
