import { describe, expect, it } from 'vitest'
import { Blocking, ExitControl, ExitReason, Pin, Primary } from '../../hypervisor/vtx/control.ts'
import { Field } from '../../hypervisor/vtx/field.ts'
import { gpa } from '../../protocol/memory.ts'
import {
  INTERRUPT_TABLE,
  machineWith,
  RAM_AT,
  RWX,
  runs,
  type SmallMachine,
  STACK_TOP,
} from './small-machine.ts'

const VALID = 0x8000_0000

describe('interrupts', () => {
  /** Without external-interrupt exiting the processor delivers the pin itself. */
  const direct = (): SmallMachine => machineWith({ pinControls: [0, Pin.EXTERNAL_INTERRUPT] })

  it('wait for IF, and for the operation after STI', () => {
    const machine = direct()
    const log: string[] = []
    const { guest } = machine
    guest.setVector(0x40, () => {
      log.push(`handler, IF ${guest.interruptsEnabled}`)
    })
    machine.interrupt(0x40)
    guest.boundary()
    guest.sti()
    log.push('sti')
    guest.boundary()
    log.push('next')
    guest.boundary()
    expect(log).toEqual(['sti', 'next', 'handler, IF false'])
    expect(guest.interruptsEnabled).toBe(true)
  })

  it('are not lost between STI and HLT', () => {
    const machine = machineWith({
      pinControls: [0, Pin.EXTERNAL_INTERRUPT],
      primaryControls: [0, Primary.HLT],
    })
    let handled = 0
    machine.guest.setVector(0x40, () => handled++)
    machine.interrupt(0x40)
    runs(machine, (guest) => {
      guest.sti()
      guest.halt()
    })
    expect(handled).toBe(1)
  })

  it('keep the interrupted registers, stack and flags', () => {
    const machine = direct()
    const { guest, processor } = machine
    guest.setVector(0x40, () => {
      guest.vmcall(1n, 2n, 3n)
    })
    guest.sti()
    guest.boundary()
    const { core } = processor
    const before = [core.rsp, core.rflags, [...processor.registers.halves]]
    machine.interrupt(0x40)
    guest.boundary()
    expect([core.rsp, core.rflags, [...processor.registers.halves]]).toEqual(before)
    expect(machine.reasons).toEqual([ExitReason.VMCALL])
  })

  it('nest when the handler enables them', () => {
    const machine = direct()
    const { guest } = machine
    const log: string[] = []
    guest.setVector(0x40, () => {
      log.push('outer begins')
      guest.sti()
      guest.boundary()
      machine.interrupt(0x50)
      guest.boundary()
      log.push('outer ends')
    })
    guest.setVector(0x50, () => log.push('inner'))
    guest.sti()
    guest.boundary()
    machine.interrupt(0x40)
    guest.boundary()
    expect(log).toEqual(['outer begins', 'inner', 'outer ends'])
  })

  it('exit with external-interrupt exiting, whatever IF is, acknowledged only if the control says so', () => {
    for (const acknowledges of [true, false]) {
      const machine = machineWith({
        pinControls: [Pin.EXTERNAL_INTERRUPT, 0],
        exitControls: acknowledges ? [ExitControl.ACKNOWLEDGE, 0] : [0, ExitControl.ACKNOWLEDGE],
      })
      const infos: number[] = []
      machine.exited = (reason) => {
        expect(reason).toBe(ExitReason.EXTERNAL_INTERRUPT)
        infos.push(machine.processor.vmread(Field.exitInterruptionInfo))
        machine.processor.setExternalPin(false)
      }
      machine.interrupt(0x40)
      machine.guest.boundary()
      expect(infos).toEqual([acknowledges ? VALID + 0x40 : 0])
      expect(machine.vectors.length).toBe(acknowledges ? 0 : 1)
    }
  })

  it('are injected at the window that root software asked for', () => {
    const machine = machineWith({ primaryControls: [Primary.INTERRUPT_WINDOW, 0] })
    const { processor, guest } = machine
    const log: string[] = []
    guest.setVector(0x41, () => log.push('handler'))
    machine.exited = (reason) => {
      log.push(`exit ${reason}`)
      processor.vmwrite(
        Field.primaryControls,
        processor.vmread(Field.primaryControls) - Primary.INTERRUPT_WINDOW,
      )
      processor.vmwrite(Field.entryInterruptionInfo, VALID + 0x41)
    }
    guest.boundary()
    guest.sti()
    guest.boundary()
    log.push('window opens')
    guest.boundary()
    expect(log).toEqual(['window opens', 'exit 7', 'handler'])
    expect(processor.vmread(Field.entryInterruptionInfo)).toBe(VALID + 0x41)
  })

  it('that pend under STI blocking exit after the operation that follows, like those that are delivered', () => {
    const machine = machineWith({ pinControls: [Pin.EXTERNAL_INTERRUPT, 0] })
    const { guest, processor } = machine
    machine.exited = () => processor.setExternalPin(false)
    guest.sti()
    machine.interrupt(0x40)
    guest.boundary()
    expect(machine.reasons).toEqual([])
    guest.boundary()
    expect(machine.reasons).toEqual([ExitReason.EXTERNAL_INTERRUPT])
  })

  it('push a frame on an aligned stack, whose RIP for a software interrupt is behind the instruction', () => {
    const machine = machineWith()
    const { guest, processor } = machine
    const { core } = processor
    const frames: number[][] = []
    guest.setVector(0x80, () => {
      expect(core.rsp % 16).toBe(8)
      frames.push([0, 8, 16, 24, 32].map((offset) => machine.physical.read(RAM_AT + core.rsp + offset, 8)))
    })
    guest.boundary()
    core.rsp -= 12
    const { rip, rsp, rflags } = core
    machine.exited = () => {
      processor.vmwrite(Field.entryInterruptionInfo, VALID + 0x480)
      processor.vmwrite(Field.entryInstructionLength, 3)
    }
    guest.vmcall(0n, 0n, 0n)
    expect(frames).toEqual([[rip + 3, 0x08, rflags, rsp, 0x10]])
    expect(rsp % 16).toBe(4)
    expect([core.rip, core.rsp]).toEqual([rip + 3, rsp])
  })

  it('that cannot be delivered are reported, and injected again by root software', () => {
    const machine = direct()
    const { processor, guest } = machine
    let handled = 0
    guest.setVector(0x40, () => handled++)
    guest.sti()
    guest.boundary()
    machine.unmap(STACK_TOP - 0x1000, 4096)
    machine.exited = (reason) => {
      expect(reason).toBe(ExitReason.EPT_VIOLATION)
      expect(processor.vmread(Field.guestPhysicalAddress)).toBe(STACK_TOP - 8)
      expect(processor.vmread(Field.idtVectoringInfo)).toBe(VALID + 0x40)
      machine.ept.map(STACK_TOP - 0x1000, 4096, { to: RAM_AT + STACK_TOP - 0x1000, permissions: RWX })
      processor.vmwrite(Field.entryInterruptionInfo, processor.vmread(Field.idtVectoringInfo))
    }
    machine.interrupt(0x40)
    guest.boundary()
    expect([handled, machine.reasons]).toEqual([1, [ExitReason.EPT_VIOLATION]])
    expect(processor.vmread(Field.idtVectoringInfo)).toBe(VALID + 0x40)
  })

  it('are lost when root software does not inject them again', () => {
    const machine = direct()
    let handled = 0
    machine.guest.setVector(0x40, () => handled++)
    machine.guest.sti()
    machine.guest.boundary()
    machine.unmap(INTERRUPT_TABLE, 4096)
    machine.exited = () =>
      machine.ept.map(INTERRUPT_TABLE, 4096, { to: RAM_AT + INTERRUPT_TABLE, permissions: RWX })
    machine.interrupt(0x40)
    machine.guest.boundary()
    expect(handled).toBe(0)
  })

  it('without a gate are a general protection, then a double, then a triple fault', () => {
    const machine = direct()
    machine.guest.sti()
    machine.guest.boundary()
    machine.exited = () => {}
    machine.interrupt(0x40)
    expect(() => machine.guest.boundary()).toThrow(/triple fault/)
    expect(machine.reasons).toEqual([ExitReason.TRIPLE_FAULT])
  })

  it('reach the handler of the fault when the gate is missing, with an error code that names it', () => {
    const machine = direct()
    const { guest, processor } = machine
    const codes: number[] = []
    guest.setVector(13, () => codes.push(machine.physical.read(RAM_AT + processor.core.rsp, 8)))
    guest.sti()
    guest.boundary()
    const before = processor.core.rsp
    machine.interrupt(0x40)
    guest.boundary()
    expect(codes).toEqual([0x40 * 8 + 2 + 1])
    expect(processor.core.rsp).toBe(before)
  })

  it('end in a triple fault when the handler ruins the frame it has to return by', () => {
    const machine = direct()
    const { guest, processor } = machine
    guest.setVector(0x40, () => machine.physical.write(RAM_AT + processor.core.rsp, 8, 0x666))
    guest.sti()
    guest.boundary()
    machine.exited = () => {}
    machine.interrupt(0x40)
    expect(() => guest.boundary()).toThrow(/triple fault/)
  })
})

describe('NMIs', () => {
  it('are delivered whatever IF is, and block one another until IRET', () => {
    const machine = machineWith({ pinControls: [0, Pin.NMI] })
    const { guest, processor } = machine
    const log: string[] = []
    guest.setVector(2, () => {
      log.push('begins')
      if (log.length === 1) processor.raiseNmi()
      guest.boundary()
      log.push('ends')
    })
    processor.raiseNmi()
    guest.boundary()
    expect(log).toEqual(['begins', 'ends', 'begins', 'ends'])
    expect(processor.core.blocking & Blocking.NMI).toBe(0)
  })

  it('are unblocked by an IRET that exits, which says so', () => {
    const machine = machineWith({ pinControls: [0, Pin.NMI] })
    const { guest, processor } = machine
    const page = STACK_TOP - 0x1000
    const seen: number[][] = []
    guest.setVector(2, () => machine.unmap(page, 4096))
    machine.exited = () => {
      const at = processor.vmread(Field.guestPhysicalAddress)
      seen.push([processor.vmread(Field.exitQualification), processor.vmread(Field.guestInterruptibility)])
      machine.ept.map(at - (at % 4096), 4096, { to: RAM_AT + at - (at % 4096), permissions: RWX })
      if (seen.length === 1) processor.vmwrite(Field.guestInterruptibility, Blocking.NMI)
    }
    processor.raiseNmi()
    guest.boundary()
    machine.unmap(0x5000, 4096)
    guest.read(gpa(0x5000), 1)
    expect(seen).toEqual([
      [0x1181, 0],
      [0x181, 0],
    ])
  })

  it('exit with NMI exiting', () => {
    const machine = machineWith({ pinControls: [Pin.NMI, 0] })
    machine.processor.raiseNmi()
    machine.exited = () => {}
    machine.guest.boundary()
    expect(machine.reasons).toEqual([ExitReason.EXCEPTION_OR_NMI])
    expect(machine.processor.vmread(Field.exitInterruptionInfo)).toBe(VALID + 0x202)
  })

  it('that are virtual block until IRET, and then their window opens', () => {
    const machine = machineWith({
      pinControls: [Pin.NMI | Pin.VIRTUAL_NMIS, 0],
      primaryControls: [Primary.NMI_WINDOW, 0],
      guestInterruptibility: [Blocking.NMI, 0],
    })
    const { guest, processor } = machine
    const log: string[] = []
    machine.exited = (reason) => {
      log.push(`exit ${reason}`)
      processor.vmwrite(Field.primaryControls, processor.vmread(Field.primaryControls) - Primary.NMI_WINDOW)
    }
    guest.setVector(0x40, () => log.push('handler'))
    guest.sti()
    guest.boundary()
    guest.boundary()
    expect(log).toEqual([])
    processor.core.delivery.inject(VALID + 0x40, 0, 0)
    guest.boundary()
    expect(log).toEqual(['handler', 'exit 8'])
  })
})

describe('the VMX-preemption timer', () => {
  it('exits once virtual time has passed it, and keeps what is left where the control says so', () => {
    const machine = machineWith({
      pinControls: [Pin.PREEMPTION_TIMER, 0],
      exitControls: [ExitControl.SAVE_PREEMPTION_TIMER, 0],
    })
    const { guest, processor } = machine
    processor.vmwrite(Field.preemptionTimer, 100)
    machine.exited = (reason) => {
      if (reason === ExitReason.CPUID) processor.advance()
      else processor.vmwrite(Field.preemptionTimer, 1000)
    }
    guest.boundary()
    expect(processor.preemptionDueUs).toBe(100)
    machine.nowUs = 40
    guest.cpuid(0, 0)
    expect(processor.vmread(Field.preemptionTimer)).toBe(60)
    machine.nowUs = 99
    guest.boundary()
    expect(machine.reasons).toEqual([ExitReason.CPUID])
    machine.nowUs = 100
    guest.boundary()
    expect(machine.reasons).toEqual([ExitReason.CPUID, ExitReason.PREEMPTION_TIMER])
    expect(processor.preemptionDueUs).toBe(1100)
  })
})
