import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Register } from '../../../hypervisor/processor.ts'
import { ExitReason, Primary } from '../../../hypervisor/vtx/control.ts'
import { Field } from '../../../hypervisor/vtx/field.ts'
import { Msr } from '../../../hypervisor/vtx/msr.ts'
import { LAYOUT, SmallMachine } from '../small-machine.ts'

const PORTS = 0x10000

function machineWith(primary: number): SmallMachine {
  const machine = new SmallMachine()
  const { processor } = machine
  processor.vmwrite(Field.primaryControls, processor.vmread(Field.primaryControls) + primary)
  processor.vmwrite(Field.ioBitmapA, LAYOUT.ioBitmapA)
  processor.vmwrite(Field.ioBitmapB, LAYOUT.ioBitmapB)
  processor.vmwrite(Field.msrBitmap, LAYOUT.msrBitmap)
  machine.exited = () => processor.advance()
  return machine
}

function setBit(machine: SmallMachine, base: number, index: number): void {
  const at = base + Math.floor(index / 8)
  machine.physical.write(at, 1, machine.physical.u8(at) | (1 << (index % 8)))
}

const width = fc.constantFrom(1 as const, 2 as const, 4 as const)
/** Around the edges: the first ports, the seam between the bitmaps, the wrap. */
const port = fc.oneof(
  fc.nat(40),
  fc.nat(20).map((index) => 0x8000 - 10 + index),
  fc.nat(9).map((index) => PORTS - 10 + index),
  fc.nat(PORTS - 1),
)

describe('port accesses', () => {
  it('exit exactly when a bit of one of their ports is set, or they run past port 0xffff', () => {
    fc.assert(
      fc.property(fc.array(port, { maxLength: 6 }), port, width, fc.boolean(), (bits, at, bytes, isIn) => {
        const machine = machineWith(Primary.IO_BITMAPS)
        const marked = new Set(bits)
        for (const one of marked)
          setBit(machine, one < 0x8000 ? LAYOUT.ioBitmapA : LAYOUT.ioBitmapB, one % 0x8000)
        const touched = Array.from({ length: bytes }, (_, index) => at + index)
        const exits = touched.some((one) => one >= PORTS || marked.has(one))
        if (isIn) machine.guest.portRead(at, bytes)
        else machine.guest.portWrite(at, bytes, 0)
        expect(machine.reasons).toEqual(exits ? [ExitReason.IO] : [])
        if (!exits) return
        const qualification = at * 0x10000 + (bytes - 1) + (isIn ? 8 : 0)
        expect(machine.processor.vmread(Field.exitQualification)).toBe(qualification)
        expect(machine.processor.vmread(Field.exitInstructionLength)).toBe(bytes === 2 ? 2 : 1)
      }),
    )
  })

  it('never exit without either control, and always under unconditional exiting without bitmaps', () => {
    const free = machineWith(0)
    expect(free.guest.portRead(0x60, 2)).toBe(0xffff)
    free.guest.portWrite(0xffff, 4, 1)
    expect(free.reasons).toEqual([])
    const all = machineWith(Primary.UNCONDITIONAL_IO)
    all.guest.portRead(0x60, 1)
    expect(all.reasons).toEqual([ExitReason.IO])
    const bitmaps = machineWith(Primary.UNCONDITIONAL_IO + Primary.IO_BITMAPS)
    bitmaps.guest.portRead(0x60, 1)
    expect(bitmaps.reasons).toEqual([])
  })

  it('return what root software left in the accumulator, cut to their width', () => {
    for (const bytes of [1, 2, 4] as const) {
      const machine = machineWith(Primary.UNCONDITIONAL_IO)
      machine.exited = () => {
        machine.processor.registers.setLow(Register.RAX, 0x8765_4321)
        machine.processor.advance()
      }
      expect(machine.guest.portRead(0x1f0, bytes)).toBe(0x8765_4321 % 2 ** (bytes * 8))
    }
  })

  it('of strings exit with the count that is left, wherever root software stops', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 7 }),
        width,
        fc.boolean(),
        (count, chunk, bytes, isIn) => {
          const machine = machineWith(Primary.UNCONDITIONAL_IO)
          const { processor, guest } = machine
          const index = isIn ? Register.RDI : Register.RSI
          const left: number[] = []
          machine.exited = () => {
            const { registers } = processor
            left.push(registers.get(Register.RCX))
            expect(processor.vmread(Field.guestLinearAddress)).toBe(registers.get(index))
            const items = Math.min(chunk, registers.get(Register.RCX))
            registers.set(index, registers.get(index) + items * bytes)
            registers.set(Register.RCX, registers.get(Register.RCX) - items)
            if (registers.get(Register.RCX) === 0) processor.advance()
          }
          if (isIn) guest.portReadString(0x1f0, bytes, 0x5000 as never, count)
          else guest.portWriteString(0x1f0, bytes, 0x5000 as never, count)
          const wanted: number[] = []
          for (let rest = count; rest > 0; rest -= chunk) wanted.push(rest)
          expect(left).toEqual(wanted)
          const qualification = 0x1f0 * 0x10000 + (bytes - 1) + 0x30 + (isIn ? 8 : 0)
          expect(processor.vmread(Field.exitQualification)).toBe(qualification)
          expect(processor.vmread(Field.exitInstructionInfo)).toBe(isIn ? 0x100 : 0x1_8100)
        },
      ),
    )
  })

  it('of strings without an exit move through memory', () => {
    const machine = machineWith(0)
    machine.guest.portReadString(0x1f0, 2, 0x5ffe as never, 3)
    expect([...machine.ram.subarray(0x5ffc, 0x6006)]).toEqual([0, 0, 255, 255, 255, 255, 255, 255, 0, 0])
    machine.guest.portWriteString(0x1f0, 2, 0x5ffe as never, 3)
    expect(machine.processor.registers.get(Register.RSI)).toBe(0x6004)
    machine.guest.portReadString(0x1f0, 2, 0x5000 as never, 0)
    expect(machine.reasons).toEqual([])
  })
})

const HIGH = 0xc000_0000
const readable = [Msr.STAR, Msr.LSTAR, Msr.KERNEL_GS_BASE, Msr.SYSENTER_EIP, Msr.PAT] as const
const msr = fc.oneof(
  fc.constantFrom(...readable),
  fc.nat(0x1fff),
  fc.nat(0x1fff).map((index) => HIGH + index),
  fc.constantFrom(0x2000, HIGH - 1, HIGH + 0x2000, 0xffff_ffff),
)

describe('RDMSR and WRMSR', () => {
  it('exit exactly when their bit is set, or the bitmap does not cover them', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(msr, fc.boolean()), { maxLength: 5 }),
        fc.constantFrom(...readable, 0x2000, HIGH - 1, HIGH + 0x2000),
        fc.boolean(),
        (bits, index, isWrite) => {
          const machine = machineWith(Primary.MSR_BITMAPS)
          const covered = (one: number): boolean => one < 0x2000 || (one >= HIGH && one < HIGH + 0x2000)
          for (const [one, forWrite] of bits) {
            if (!covered(one)) continue
            const quarter = (forWrite ? 2 : 0) + (one >= HIGH ? 1 : 0)
            setBit(machine, LAYOUT.msrBitmap + 1024 * quarter, one % HIGH)
          }
          const marked = bits.some(([one, forWrite]) => one === index && forWrite === isWrite)
          if (isWrite) machine.guest.writeMsr(index, 0n)
          else machine.guest.readMsr(index)
          const reason = isWrite ? ExitReason.WRMSR : ExitReason.RDMSR
          expect(machine.reasons).toEqual(marked || !covered(index) ? [reason] : [])
        },
      ),
    )
  })

  it('always exit without bitmaps, with the index in RCX and the value in EDX:EAX', () => {
    const machine = machineWith(0)
    const { processor, guest } = machine
    const seen: bigint[] = []
    machine.exited = (reason) => {
      const { registers } = processor
      expect(registers.low(Register.RCX)).toBe(0x4567)
      if (reason === ExitReason.WRMSR) {
        seen.push(BigInt(registers.low(Register.RDX)) * 2n ** 32n + BigInt(registers.low(Register.RAX)))
      } else {
        registers.setLow(Register.RAX, 0xffff_fffe)
        registers.setLow(Register.RDX, 0x8000_0001)
      }
      processor.advance()
    }
    guest.writeMsr(0x4567, 0xfedc_ba98_7654_3210n)
    expect(seen).toEqual([0xfedc_ba98_7654_3210n])
    expect(guest.readMsr(0x4567)).toBe(0x8000_0001_ffff_fffen)
  })

  it('that do not exit keep their values, of which some are VMCS fields', () => {
    const { guest, processor } = machineWith(Primary.MSR_BITMAPS)
    guest.writeMsr(Msr.LSTAR, 0xffff_8000_1234_5678n)
    guest.writeMsr(Msr.SYSENTER_EIP, 0x1000n)
    expect(guest.readMsr(Msr.LSTAR)).toBe(0xffff_8000_1234_5678n)
    expect(guest.readMsr(Msr.SYSENTER_EIP)).toBe(0x1000n)
    expect(processor.vmread(Field.guestSysenterEip)).toBe(0x1000)
  })
})
