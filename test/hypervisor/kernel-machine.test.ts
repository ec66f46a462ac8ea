import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import { Kernel } from '../../guest/kernel/kernel.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { APIC_2006, APIC_2010, APICV } from '../../hypervisor/apic-profile.ts'
import { Machine } from '../../hypervisor/machine.ts'
import { ExitReason } from '../../hypervisor/vtx/control.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'

const REGISTERS = gpa(0xd000_0000)

describe.each([APIC_2006, APIC_2010, APICV])('the guest kernel on a machine of profile $name', (profile) => {
  it.each([null, 1, 2, 3])('runs threads, timers and registers with preemption seed %s', (seed) => {
    const preemption = seed === null ? null : seededRandom(seed)
    const machine = new Machine({
      profile,
      ram: GuestMemory.ofBytes(8 * 2 ** 20),
      preemption: preemption?.stream('exits') ?? null,
    })
    let writes = 0
    machine.map('device', REGISTERS, 0x1000, { read: () => writes, write: () => writes++ })
    const kernel = new Kernel({
      processor: machine.processor.guest,
      version: WINDOWS_VERSIONS[7],
      preemption: preemption?.stream('kernel') ?? null,
    })
    const order: string[] = []
    for (const name of ['a', 'b']) {
      kernel.psCreateSystemThread(function* () {
        for (let round = 1; round <= 3; round++) {
          machine.processor.guest.write(REGISTERS, 4, round)
          yield* kernel.keDelayExecutionThread(round * 100)
          order.push(`${name}${round} ${machine.clock.now() >= round * 100}`)
        }
      })
    }
    machine.start(kernel)
    machine.drain()
    expect(kernel.bugCheck).toBeNull()
    expect([...order].sort()).toEqual(['a1 true', 'a2 true', 'a3 true', 'b1 true', 'b2 true', 'b3 true'])
    expect(writes).toBe(6)
    expect(machine.halted).toBe(true)
    expect(machine.counters.of(ExitReason.HLT)).toBeGreaterThanOrEqual(3)
    expect(machine.bus.unclaimed).toBe(0)
  })
})
