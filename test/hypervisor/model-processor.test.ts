import { describe, expect, it } from 'vitest'
import { Register } from '../../hypervisor/processor.ts'
import { Activity, ExitReason, Pin, Primary, Secondary } from '../../hypervisor/vtx/control.ts'
import { EptTables, PagePool } from '../../hypervisor/vtx/ept.ts'
import { Field } from '../../hypervisor/vtx/field.ts'
import { gpa } from '../../protocol/memory.ts'
import type { GuestProcessor } from '../../protocol/processor.ts'
import { LAYOUT, machineWith, RAM_AT, RAM_BYTES, RWX, runs, SmallMachine } from './small-machine.ts'

const DOORBELL = gpa(0xfeb0_0050)

describe('an operation that exits', () => {
  it('is executed again when RIP stays, and is complete when RIP has passed it', () => {
    const machine = machineWith()
    const { processor, guest } = machine
    const rips: number[] = []
    machine.exited = () => {
      rips.push(processor.vmread(Field.guestRip))
      processor.registers.setWide(Register.RAX, 7n)
      if (rips.length >= 3) processor.advance()
    }
    expect(guest.vmcall(1n, 2n, 3n)).toBe(7n)
    expect(new Set(rips).size).toBe(1)
    guest.vmcall(1n, 2n, 3n)
    expect(rips[3]).toBe((rips[0] as number) + 3)
  })

  it('stops the run when root software sends RIP elsewhere', () => {
    const machine = machineWith()
    machine.exited = () => machine.processor.vmwrite(Field.guestRip, 0x1234)
    expect(() => machine.guest.cpuid(0, 0)).toThrow(/guest RIP went from .* to 1234h/)
  })

  it('hands over arguments and answers in the registers of its instruction', () => {
    const machine = machineWith()
    const { processor, guest } = machine
    const { registers } = processor
    const seen: (number | bigint)[] = []
    machine.exited = (reason) => {
      seen.push(reason)
      for (const one of [Register.RAX, Register.RBX, Register.RCX]) seen.push(registers.getWide(one))
      for (const one of [0, 1, 2, 3]) registers.setWide(one, BigInt(0x1_0000_0010 + one))
      processor.advance()
    }
    expect(guest.vmcall(2n ** 64n - 1n, 5n, 6n)).toBe(0x1_0000_0010n)
    expect(guest.cpuid(0x4000_0000, 9)).toEqual({ eax: 0x10, ecx: 0x11, edx: 0x12, ebx: 0x13 })
    expect(seen).toEqual([
      ExitReason.VMCALL,
      2n ** 64n - 1n,
      5n,
      6n,
      ExitReason.CPUID,
      0x4000_0000n,
      0x1_0000_0013n,
      9n,
    ])
  })

  it('is no dead end while virtual time goes on', () => {
    const machine = machineWith()
    let count = 0
    machine.exited = () => {
      machine.nowUs++
      if (++count === 40) machine.processor.advance()
    }
    machine.guest.vmcall(0n, 0n, 0n)
    expect(count).toBe(40)
  })

  it('that was passed over ends STI blocking', () => {
    const machine = machineWith({ pinControls: [Pin.EXTERNAL_INTERRUPT, 0] })
    const { guest, processor } = machine
    machine.exited = (reason) => {
      if (reason === ExitReason.VMCALL) processor.advance()
      else processor.setExternalPin(false)
    }
    guest.sti()
    machine.interrupt(0x40)
    guest.vmcall(0n, 0n, 0n)
    guest.boundary()
    expect(machine.reasons).toEqual([ExitReason.VMCALL, ExitReason.EXTERNAL_INTERRUPT])
  })

  it('may be the first thing guest code does, before run', () => {
    const machine = machineWith()
    machine.guest.cpuid(0, 0)
    expect(machine.reasons).toEqual([ExitReason.CPUID])
    expect(runs(machine, (guest) => guest.halt())).toBe('halted')
  })

  it('cannot be executed by root software inside an exit', () => {
    const machine = machineWith()
    machine.exited = () => machine.guest.cpuid(0, 0)
    expect(() => machine.guest.cpuid(0, 0)).toThrow(/by root software inside an exit/)
  })
})

describe('device registers', () => {
  it.each([
    ['a hole', null, ExitReason.EPT_VIOLATION],
    ['W and X without R', 6, ExitReason.EPT_MISCONFIGURATION],
  ] as const)(
    'behind %s exit with address, width and value, and answer what was decoded',
    (_name, permissions, reason) => {
      const machine = machineWith()
      const { processor, guest } = machine
      if (permissions !== null) machine.ept.map(0xfeb0_0000, 4096, { to: 0, permissions })
      const seen: unknown[] = []
      machine.exited = (why) => {
        const { decoded } = processor
        if (decoded === null) throw new Error('nothing was decoded')
        expect([why, processor.vmread(Field.guestPhysicalAddress)]).toEqual([reason, decoded.at])
        seen.push(decoded.kind, decoded.width)
        if (decoded.kind === 'store') seen.push(decoded.value)
        else decoded.answer(0x1_8765_4321)
        processor.advance()
      }
      expect([1, 2, 4, 8].map((width) => guest.read(DOORBELL, width as 1))).toEqual([
        0x21, 0x4321, 0x8765_4321, 0x1_8765_4321,
      ])
      for (const width of [1, 2, 4, 8] as const) guest.write(DOORBELL, width, 0x1f)
      expect(seen).toEqual([
        ...[1, 2, 4, 8].flatMap((width) => ['load', width]),
        ...[1, 2, 4, 8].flatMap((width) => ['store', width, 0x1f]),
      ])
    },
  )

  it('leave the rest of RAX as it was where the load is narrower than 32 bits', () => {
    const { guest, processor } = machineWith()
    processor.registers.setWide(Register.RAX, 0x1122_3344_5566_7788n)
    expect(guest.read(gpa(0x5000), 1)).toBe(0)
    expect(processor.registers.getWide(Register.RAX)).toBe(0x1122_3344_5566_7700n)
    guest.read(gpa(0x5000), 2)
    expect(processor.registers.getWide(Register.RAX)).toBe(0x1122_3344_5566_0000n)
    guest.read(gpa(0x5000), 4)
    expect(processor.registers.getWide(Register.RAX)).toBe(0n)
  })

  it('whose page is plain RAM do not exit', () => {
    const machine = machineWith()
    machine.ept.map(0xfeb0_0000, 4096, { to: RAM_AT + 0x3000, permissions: RWX })
    machine.guest.write(DOORBELL, 4, 0xabcd)
    expect(machine.guest.read(DOORBELL, 2)).toBe(0xabcd)
    expect(machine.ram[0x3050]).toBe(0xcd)
    expect(machine.reasons).toEqual([])
  })
})

describe('HLT', () => {
  it('exits with HLT exiting, and run enters behind it', () => {
    const machine = machineWith()
    let count = 0
    const program = (guest: GuestProcessor): void => {
      count++
      guest.halt()
    }
    expect(runs(machine, program)).toBe('halted')
    expect(machine.processor.run()).toBe('halted')
    expect([count, machine.reasons]).toEqual([2, [ExitReason.HLT, ExitReason.HLT]])
  })

  it('sleeps in the HLT activity state otherwise, until an interrupt wakes it', () => {
    const machine = machineWith({
      primaryControls: [0, Primary.HLT],
      pinControls: [0, Pin.EXTERNAL_INTERRUPT],
    })
    const log: string[] = []
    const program = (guest: GuestProcessor): void => {
      guest.setVector(0x40, () => log.push('handler'))
      log.push('run')
      guest.sti()
      guest.halt()
    }
    expect(runs(machine, program)).toBe('halted')
    expect(machine.processor.run()).toBe('halted')
    expect(machine.processor.core.activity).toBe(Activity.HLT)
    machine.interrupt(0x40)
    expect(machine.processor.run()).toBe('halted')
    expect(log).toEqual(['run', 'handler', 'run'])
    expect(machine.reasons).toEqual([])
  })

  it('is not passed over by a program that returns without it', () => {
    const machine = machineWith()
    expect(runs(machine, (guest) => guest.boundary())).toBe('yielded')
    expect(machine.reasons).toEqual([])
  })
})

describe('the task priority', () => {
  it('is CR8, or exits, as the controls say', () => {
    const free = machineWith()
    free.guest.setTaskPriority(9)
    expect([free.guest.taskPriority, free.reasons]).toEqual([9, []])
    const exits = machineWith({ primaryControls: [Primary.CR8_LOAD | Primary.CR8_STORE, 0] })
    const qualifications: number[] = []
    exits.exited = () => {
      qualifications.push(exits.processor.vmread(Field.exitQualification))
      exits.processor.registers.setLow(Register.RAX, 4)
      exits.processor.advance()
    }
    exits.guest.setTaskPriority(9)
    expect(exits.guest.taskPriority).toBe(4)
    expect(qualifications).toEqual([0x8, 0x18])
  })

  it('under a TPR shadow is kept in the virtual-APIC page and exits, complete, below the threshold', () => {
    const machine = machineWith({ primaryControls: [Primary.TPR_SHADOW, 0] })
    const { guest, processor } = machine
    processor.vmwrite(Field.virtualApicAddress, LAYOUT.virtualApic)
    guest.setTaskPriority(8)
    processor.vmwrite(Field.tprThreshold, 5)
    guest.cpuid(0, 0)
    const rips: number[] = []
    machine.exited = () => {
      rips.push(processor.vmread(Field.guestRip))
      processor.vmwrite(Field.tprThreshold, 0)
    }
    const { rip } = processor.core
    guest.setTaskPriority(5)
    expect(machine.reasons).toEqual([ExitReason.CPUID])
    guest.setTaskPriority(4)
    expect(machine.reasons).toEqual([ExitReason.CPUID, ExitReason.TPR_BELOW_THRESHOLD])
    expect(rips).toEqual([rip + 8])
    expect(machine.physical.u8(LAYOUT.virtualApic + 0x80)).toBe(0x40)
  })
})

describe('accesses to the APIC page', () => {
  it('are answered by the APIC that virtualizes them, or exit with offset and type', () => {
    const asked: unknown[] = []
    const apic = {
      endOfInterrupt: (guest: GuestProcessor) => guest.write(gpa(0xfee0_00b0), 4, 0),
      routeLine() {},
      armTimer() {},
      virtualize: (offset: number, width: number, write: boolean, value: number) => {
        asked.push([offset, width, write, value])
        return offset === 0x80 ? 0x77 : -1
      },
      taskPriorityChanged() {},
      deliverVirtual: () => -1,
    }
    const machine = new SmallMachine({ apic })
    const { processor, guest } = machine
    machine.ept.map(0xfee0_0000, 4096, { to: 0x7000, permissions: RWX })
    const field = Field.secondaryControls
    processor.vmwrite(field, processor.vmread(field) + Secondary.APIC_ACCESSES)
    processor.vmwrite(Field.apicAccessAddress, 0x7000)
    machine.exited = () => processor.advance()
    expect(guest.read(gpa(0xfee0_0080), 4)).toBe(0x77)
    expect(machine.reasons).toEqual([])
    guest.endOfInterrupt()
    expect(machine.reasons).toEqual([ExitReason.APIC_ACCESS])
    expect(processor.vmread(Field.exitQualification)).toBe(0x10b0)
    expect(asked).toEqual([
      [0x80, 4, false, 0],
      [0xb0, 4, true, 0],
    ])
  })
})

describe('a saved processor', () => {
  it('goes on as the one it was saved from', () => {
    const program = (guest: GuestProcessor): void => {
      guest.cpuid(1, 0)
      guest.sti()
      guest.writeMsr(0xc000_0082, 0x1234n)
      guest.boundary()
    }
    const prepare = (): SmallMachine =>
      machineWith({ primaryControls: [Primary.MSR_BITMAPS, 0], msrBitmap: [LAYOUT.msrBitmap, 0] })
    const one = prepare()
    expect(runs(one, program)).toBe('yielded')
    one.processor.raiseNmi()
    const saved = JSON.parse(JSON.stringify(one.processor.save()))
    const other = prepare()
    expect(other.processor.load(saved)).toBeNull()
    expect(other.processor.save()).toEqual(one.processor.save())
    for (const machine of [one, other]) {
      machine.reasons.length = 0
      machine.exited = () => {}
      machine.guest.boundary()
    }
    expect(other.reasons).toEqual([ExitReason.EXCEPTION_OR_NMI])
    expect(other.reasons).toEqual(one.reasons)
    expect(other.processor.save()).toEqual(one.processor.save())
    expect(other.guest.readMsr(0xc000_0082)).toBe(0x1234n)
  })

  it('is refused whole when a part of it is wrong', () => {
    const machine = machineWith()
    const good = machine.processor.save() as { readonly [name: string]: never }
    const wrong: unknown[] = [
      null,
      { ...good, version: 2 },
      { ...good, rip: 'x' },
      { ...good, inGuest: 1 },
      { ...good, registers: [1] },
      { ...good, msrs: { '4567': '1' } },
      { ...good, msrs: { c0000082: '800000000000' } },
      { ...good, vmx: { ...(good['vmx'] as unknown as object), current: 0x5000 } },
      {
        ...good,
        vmx: { ...(good['vmx'] as unknown as object), regions: { '2000': { launched: true, fields: {} } } },
      },
    ]
    for (const state of wrong) expect(machine.processor.load(state as never)).not.toBeNull()
    expect(machine.processor.save()).toEqual(good)
  })
})

describe('memory before the first entry', () => {
  it('is seen through the EPT of the current VMCS', () => {
    const machine = new SmallMachine()
    machine.ram[0x9000] = 7
    const tables = new EptTables(machine.physical, new PagePool(0x8_0000, 0x1_0000), 2)
    tables.map(0, 0x10000, { to: RAM_AT + 0x9000, permissions: RWX })
    const window = machine.guest.memory.window(gpa(0), 16, 1)
    expect(window?.u8(0 as never)).toBe(0)
    machine.processor.vmwrite(Field.eptPointer, tables.pointer())
    expect(machine.guest.memory.window(gpa(0), 16, 1)?.u8(0 as never)).toBe(7)
    expect(window?.u8(0 as never)).toBe(7)
    expect(machine.reasons).toEqual([])
  })
})

describe('memory beyond RAM', () => {
  it('is not handed out', () => {
    const { guest } = new SmallMachine()
    expect(guest.memory.end).toBe(RAM_BYTES)
    expect(guest.memory.backed(gpa(RAM_BYTES - 1), 1)).toBe(true)
    expect(guest.memory.backed(gpa(RAM_BYTES - 1), 2)).toBe(false)
  })
})
