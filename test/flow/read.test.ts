import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { Irql } from '../../guest/kernel/irql.ts'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import { UserFile } from '../../guest/user.ts'
import { APIC_2010, APICV } from '../../hypervisor/apic-profile.ts'
import { ExitReason } from '../../hypervisor/vtx/control.ts'
import { gpa } from '../../protocol/memory.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { REGISTERS } from '../guest/storport-rig.ts'
import { escapePath, opened } from '../host/disk-subjects.ts'
import { WholeStack } from './whole-stack.ts'

const BYTES = 4096
const QUEUE_NOTIFY = 0x50
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-flow-'))
afterAll(() => fs.rmSync(directory, { recursive: true, force: true }))

/** Counts bytes that anybody copies from one array to another, from outside. */
function copiesDuring(work: () => void): number {
  const { set, copyWithin, slice } = Uint8Array.prototype
  let copied = 0
  Uint8Array.prototype.set = function (this: Uint8Array, from, at) {
    copied += from.length
    set.call(this, from, at)
  }
  Uint8Array.prototype.copyWithin = function (this: Uint8Array, to, from, end) {
    copied += (end ?? this.length) - from
    return copyWithin.call(this, to, from, end) as never
  }
  Uint8Array.prototype.slice = function (this: Uint8Array, from, to) {
    copied += (to ?? this.length) - (from ?? 0)
    return slice.call(this, from, to) as never
  }
  try {
    work()
  } finally {
    Object.assign(Uint8Array.prototype, { set, copyWithin, slice })
  }
  return copied
}

/** A file disk with a page of sevens at 8 KiB, opened by an application; then what happens during `body`. */
async function booted(options: ConstructorParameters<typeof WholeStack>[1] = {}) {
  const image = path.join(directory, 'disk.img')
  fs.writeFileSync(image, new Uint8Array(2 ** 20).fill(7, 8192, 8192 + BYTES))
  const events: TraceEvent[] = []
  let on = false
  const trace = {
    get on() {
      return on
    },
    emit: (event: TraceEvent) => events.push(event),
  }
  const backend = await opened(`file:${escapePath(image)},readonly`)
  const asked: string[] = []
  const submit = backend.submit.bind(backend)
  backend.submit = (io) => {
    asked.push(io.op)
    submit(io)
  }
  const stack = new WholeStack(backend, { trace, ...options })
  const { user } = stack
  const { file, buffer } = stack.run(function* () {
    yield* stack.boot()
    const file = yield* user.open('\\\\.\\PhysicalDrive0', { unbuffered: true, write: false })
    if (!(file instanceof UserFile)) throw new Error('not opened')
    return { file, buffer: user.allocate(BYTES) }
  })
  const read = () => stack.run(() => file.read(buffer, BYTES, 8192))
  return { stack, user, file, buffer, asked, events, read, watch: () => (on = true) }
}

describe('one read of 4 KiB', () => {
  it.each([APICV, APIC_2010])(
    'reaches the application under any preemption on profile $name',
    async (profile) => {
      for (const seed of [undefined, 1, 2, 3, 4, 5]) {
        const { stack, user, buffer, read } = await booted(
          seed === undefined ? { profile } : { profile, seed },
        )
        expect(read().information).toBe(BYTES)
        expect(user.get(buffer, BYTES)?.every((byte) => byte === 7)).toBe(true)
        expect(stack.disk.violations.entries()).toEqual([])
        expect(stack.machine.bus.unclaimed).toBe(0)
      }
    },
  )

  it.each([
    { profile: APICV, endOfInterruptExits: 0 },
    { profile: APIC_2010, endOfInterruptExits: 1 },
  ])('is one doorbell, one interrupt, one request at every level on $profile.name', async (expected) => {
    const { stack, asked, events, read, watch } = await booted({ profile: expected.profile })
    read()
    watch()
    asked.length = 0
    const { counters } = stack.machine
    const apicAccesses = counters.of(ExitReason.APIC_ACCESS)
    const doorbells: number[] = []
    const { transport } = stack.disk
    const write = transport.write.bind(transport)
    transport.write = (offset, width, value) => {
      if (offset === QUEUE_NOTIFY) doorbells.push(value)
      write(offset, width, value)
    }
    let irps = 0
    stack.kernel.parts.irps.observer = {
      allocated: () => irps++,
      freeing() {},
      sent() {},
      answered() {},
      marked() {},
      completing() {},
      completed() {},
      unwound() {},
      cancelling() {},
    }
    const copied = copiesDuring(() => {
      expect(read().information).toBe(BYTES)
    })
    const count = (name: string) => events.filter((event) => event.name === name).length
    expect(doorbells).toEqual([0])
    expect(asked).toEqual(['read'])
    expect({
      doorbell: count('doorbell'),
      take: count('take'),
      block: count('block'),
      give: count('give'),
      signal: count('signal'),
    }).toEqual({ doorbell: 1, take: 1, block: 1, give: 1, signal: 1 })
    // The vector of the disk's line; the clock's is of another level.
    const interrupts = events.flatMap((event) => {
      if (event.name === 'deliver') return [event.vector]
      return event.name === 'inject' && !event.again ? [event.info & 0xff] : []
    })
    expect(interrupts.filter((vector) => vector >>> 4 === Irql.DEVICE).length).toBe(1)
    // The application's own; the class driver's packets have theirs already.
    expect(irps).toBe(1)
    expect(copied).toBeLessThan(BYTES)
    expect(counters.of(ExitReason.APIC_ACCESS) - apicAccesses > 0).toBe(expected.endOfInterruptExits > 0)
  })
})

describe('the parts bear load', () => {
  it('a page of the buffer that is unmapped makes whoever touches it exit, and the data is right all the same', async () => {
    const { stack, user, buffer, read } = await booted()
    const frame = stack.kernel.parts.space.physical(buffer)
    const before = stack.machine.counters.of(ExitReason.EPT_VIOLATION)
    stack.machine.unmap(gpa(frame ?? 0), BYTES)
    expect(read().information).toBe(BYTES)
    expect(user.get(buffer, BYTES)?.every((byte) => byte === 7)).toBe(true)
    expect(stack.machine.counters.of(ExitReason.EPT_VIOLATION)).toBeGreaterThan(before)
  })

  it('a doorbell page that is plain RAM stops the disk until the port’s timeout', async () => {
    const { stack, read } = await booted()
    stack.machine.coverWithRam(REGISTERS)
    const from = stack.machine.clock.now()
    const { status } = read()
    expect(ntStatusName(status)).not.toBe('SUCCESS')
    expect(stack.machine.clock.now() - from).toBeGreaterThanOrEqual(10_000_000)
    expect(stack.kernel.bugCheck).toBe(null)
  })

  it('interrupts wait while IRQL is raised', async () => {
    const { stack, file, buffer } = await booted()
    const { kernel, machine } = stack
    let served = -1
    let waited = -1
    stack.run(function* () {
      kernel.psCreateSystemThread(function* () {
        yield* file.read(buffer, BYTES, 8192)
        served = machine.clock.now()
      })
      const before = kernel.keRaiseIrql(Irql.HIGH)
      for (let i = 0; i < 100; i++) machine.processor.guest.boundary()
      waited = served
      kernel.keLowerIrql(before)
      yield* kernel.keDelayExecutionThread(1_000_000)
    })
    expect(waited).toBe(-1)
    expect(served).toBeGreaterThanOrEqual(0)
  })
})
