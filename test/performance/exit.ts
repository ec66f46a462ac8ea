import { APIC_2010, APICV, type ApicProfile } from '../../hypervisor/apic-profile.ts'
import { Machine } from '../../hypervisor/machine.ts'
import { Register } from '../../hypervisor/processor.ts'
import { ExitReason } from '../../hypervisor/vtx/control.ts'
import { Field } from '../../hypervisor/vtx/field.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { SmallMachine } from '../hypervisor/small-machine.ts'
import type { Measurement } from './measure.ts'
import { nsPerOperation } from './measure.ts'

/** Short, so that on a busy machine most batches run without being preempted. */
const BATCH = 500

/** Stands for the work a device would do, so that both candidates do it. */
class Device {
  total = 0
  write(value: number): void {
    this.total += value
  }
}

function emptyCall(): () => void {
  const devices = [new Device(), new Device()]
  return () => {
    for (let i = 0; i < BATCH; i++) (devices[i & 1] as Device).write(i)
    if (devices[0]?.total === -1) throw new Error('the calls were optimized away')
  }
}

/** OUT exits; root software dispatches by reason and port, calls the device, and resumes behind the instruction. */
function portWrite(): () => void {
  const machine = new SmallMachine()
  const { processor, guest } = machine
  const device = new Device()
  processor.vmwrite(Field.primaryControls, processor.vmread(Field.primaryControls) + 2 ** 24)
  machine.reasons.push = () => 0
  machine.exited = (reason) => {
    if (reason !== ExitReason.IO) throw new Error(`unexpected exit ${reason}`)
    const port = processor.vmread(Field.exitQualification) >>> 16
    if (port === 0x3f8) device.write(processor.registers.low(Register.RAX))
    processor.advance()
  }
  return () => {
    for (let i = 0; i < BATCH; i++) guest.portWrite(0x3f8, 4, i)
  }
}

/** A store to a page that the EPT misconfigures on purpose: the doorbell of a memory-mapped device. */
function registerWrite(): () => void {
  const machine = new SmallMachine()
  const { processor, guest } = machine
  const device = new Device()
  const at = 0xfeb0_0050 as Parameters<typeof guest.write>[0]
  machine.ept.map(0xfeb0_0000, 4096, { to: 0, permissions: 6 })
  machine.reasons.push = () => 0
  machine.exited = (reason) => {
    const { decoded } = processor
    if (reason !== ExitReason.EPT_MISCONFIGURATION || decoded === null)
      throw new Error(`unexpected exit ${reason}`)
    if (processor.vmread(Field.guestPhysicalAddress) === at) device.write(decoded.value)
    processor.advance()
  }
  return () => {
    for (let i = 0; i < BATCH; i++) guest.write(at, 4, i)
  }
}

/** The same store on a whole machine: dispatcher, bus, counters, and the look for events before the entry. */
function doorbell(profile: ApicProfile): () => void {
  const machine = new Machine({ profile, ram: GuestMemory.ofBytes(2 ** 20) })
  const device = new Device()
  const base = gpa(0xd000_0000)
  machine.map('device', base, 4096, { read: () => 0, write: (_offset, _width, value) => device.write(value) })
  const { guest } = machine.processor
  const at = gpa(base + 0x50)
  return () => {
    for (let i = 0; i < BATCH; i++) guest.write(at, 4, i)
  }
}

const BATCHES: { readonly [candidate: string]: () => () => void } = {
  'empty call': emptyCall,
  'port write': portWrite,
  'register write': registerWrite,
  'doorbell 2010': () => doorbell(APIC_2010),
  'doorbell apicv': () => doorbell(APICV),
}

export const EXIT: Measurement = {
  name: 'exit',
  what: 'a guest operation that exits, its dispatch and the entry after it, beside a call; under 400 ns is the goal',
  candidates: Object.keys(BATCHES),
  goals: {},
  unit: 'ns',
  run: (candidate, ms) => {
    const prepare = BATCHES[candidate]
    if (prepare === undefined) throw new Error(`no candidate is called "${candidate}"`)
    return nsPerOperation(BATCH, ms, prepare())
  },
}
