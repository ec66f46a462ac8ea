import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { User, UserFile } from '../../guest/user.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import { type HostileAct, HostileDevice } from './hostile-device.ts'
import { StorportRig } from './storport-rig.ts'

const SECTOR = 512
const ACT_EVERY_US = 100
/** Nine tries of ten seconds, each with a watchdog's tick and a pause of a second; and as much again. */
const BOUND_SECONDS = 220

const act: fc.Arbitrary<HostileAct> = fc.oneof(
  fc.record({
    kind: fc.constant('serve' as const),
    status: fc.constantFrom(0, 1, 2, 255, null),
    extraBytes: fc.constantFrom(0, 0, 1, 4096, 0xffff_0000),
  }),
  fc.record({
    kind: fc.constant('use' as const),
    head: fc.integer({ min: 0, max: 0xffff_ffff }),
    lengthBytes: fc.nat(),
  }),
  fc.record({ kind: fc.constant('use' as const), head: fc.nat(16), lengthBytes: fc.constantFrom(0, 1, 513) }),
  fc.record({ kind: fc.constant('leap' as const), by: fc.integer({ min: 1, max: 0xffff }) }),
  fc.record({ kind: fc.constant('scribble' as const), seed: fc.nat(255) }),
  fc.record({ kind: fc.constant('interrupt' as const), causes: fc.integer({ min: 1, max: 3 }) }),
  fc.constant<HostileAct>({ kind: 'needs-reset' }),
)

/** H21 and H22: what the device says of itself, and a device that is not there. */
const CAPACITIES = [0, 1, 64, 127, 128, 129, 0x1000_0000, 0xffff_ffff] as const
const lie: fc.Arbitrary<HostileAct> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('configure' as const),
      offset: fc.constant(0),
      value: fc.constantFrom(...CAPACITIES),
      told: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('configure' as const),
      // Capacity above 4 Gi sectors, segments, block size.
      offset: fc.constantFrom(4, 12, 20),
      value: fc.constantFrom(0, 1, 2, 511, 512, 513, 4096, 0x10_0001, 0xffff_ffff),
      told: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('tear' as const), reads: fc.constantFrom(1, 2, 3, 30, 1000) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('lie' as const),
      register: fc.constantFrom(0x060, 0x070, 0x0fc, 0x100, 0x104, 0x034, 0x010, 0x000),
      value: fc.constantFrom(0, 1, 3, 64, 0x7f, 0xffff_ffff),
      times: fc.constantFrom(1, 1, 2, 3, 20, 100_000),
    }),
  },
  { arbitrary: fc.constantFrom<HostileAct>({ kind: 'vanish' }, { kind: 'stick' }), weight: 1 },
)

interface End {
  readonly status: string
  readonly movedBytes: number
}

/** An application over the whole stack, over a device that serves honestly while it is told to. */
class Stack {
  readonly rig: StorportRig
  readonly device: HostileDevice
  readonly user: User
  /** By request: each time it ended. */
  readonly ends: End[][] = []
  /** Buffers of others, which a request's bytes were found in. */
  overruns = 0
  /** When the last of them ended: the driver may look at its disk for longer. */
  lastEndSeconds = 0
  #honest = false

  constructor(seed?: number) {
    this.rig = new StorportRig(seed === undefined ? {} : { seed })
    this.device = new HostileDevice(this.rig.machine.processor.memory)
    this.rig.plug(this.device)
    this.user = new User(this.rig.kernel)
  }

  get seconds(): number {
    return this.rig.machine.clock.now() / 1e6
  }

  #serve(): void {
    if (!this.#honest) return
    this.device.act({ kind: 'serve', status: 0, extraBytes: 0 })
    this.device.act({ kind: 'interrupt', causes: 1 })
    this.rig.machine.clock.after(ACT_EVERY_US, () => this.#serve())
  }

  /** The device is as it was at first, whatever it said since; what the guest was told has arrived. */
  reform(): void {
    this.device.reform()
    const { kernel } = this.rig
    this.honestly(function* () {
      yield* kernel.keDelayExecutionThread(1_000_000)
    })
  }

  /** The length an application is told, in sectors, or the error. */
  length(): number | string {
    const { user } = this
    let answer: number | string = 'nothing'
    this.honestly(function* () {
      const file = yield* user.open('\\\\.\\PhysicalDrive0')
      if (!(file instanceof UserFile)) throw new Error('not opened')
      const { status, bytes } = yield* file.control(0x7405c, new Uint8Array(0), 8)
      const told = new DataView(bytes.buffer)
      answer =
        status === NtStatus.SUCCESS
          ? (told.getUint32(0, true) + told.getUint32(4, true) * 2 ** 32) / SECTOR
          : ntStatusName(status)
      yield* file.close()
    })
    return answer
  }

  /** Runs a thread over an honest device, and then everything to its end over a silent one. */
  honestly(body: () => Waiting<void>): void {
    const { machine } = this.rig
    this.#honest = true
    machine.clock.after(ACT_EVERY_US, () => this.#serve())
    machine.start(() => {
      const stop = (): void => {
        this.#honest = false
      }
      this.rig.kernel.psCreateSystemThread(function* () {
        yield* body()
        stop()
      })
    })
  }

  /** The miniport, the disk, and what it reads of the medium. */
  start(): void {
    const { rig } = this
    const { kernel } = rig
    this.honestly(function* () {
      yield* rig.start(blkMiniport('1.3'))
      const driver = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
      if (typeof driver === 'number') throw new Error('not loaded')
      yield* settled(kernel.call(driver.addDevice)(driver, rig.pdo))
      const top = kernel.ioGetAttachedDevice(rig.pdo)
      const irp = kernel.ioAllocateIrp(top.stackSize)
      if (irp === null) throw new Error('no request')
      irp.next.major = Major.PNP
      kernel.ioSetCompletionRoutine(
        irp,
        kernel.routine(() => NtStatus.MORE_PROCESSING_REQUIRED),
      )
      yield* settled(kernel.ioCallDriver(top, irp))
      kernel.ioFreeIrp(irp)
      while (kernel.parts.names.find('\\??\\PhysicalDrive0')?.device.sectorSize !== SECTOR) {
        yield* kernel.keDelayExecutionThread(1000)
      }
      yield* kernel.keDelayExecutionThread(10_000)
    })
  }

  /** One request of an application, between buffers that are none of its business. */
  *request(index: number): Waiting<void> {
    const { user, ends } = this
    const file = yield* user.open('\\\\.\\PhysicalDrive0', { overlapped: index % 2 === 0 })
    if (!(file instanceof UserFile)) throw new Error('not opened')
    const before = user.allocate(SECTOR)
    const buffer = user.allocate(SECTOR)
    const after = user.allocate(SECTOR)
    for (const other of [before, after]) user.put(other, new Uint8Array(SECTOR).fill(0xc5))
    const ended: End[] = []
    ends.push(ended)
    const { status, information } = yield* index % 3 === 0
      ? file.write(buffer, SECTOR, 0)
      : file.read(buffer, SECTOR, index * SECTOR)
    this.lastEndSeconds = this.seconds
    ended.push({ status: ntStatusName(status), movedBytes: information })
    for (const other of [before, after]) {
      if (user.get(other, SECTOR)?.every((byte) => byte === 0xc5) !== true) this.overruns++
    }
    for (const one of [before, buffer, after]) user.free(one)
    yield* file.close()
  }

  /** Requests under way while the device does all that, and never answers again. */
  play(acts: readonly HostileAct[], requests: number): void {
    const { device, rig } = this
    for (const [index, one] of acts.entries()) {
      rig.machine.clock.after(150 + index * ACT_EVERY_US, () => {
        device.act(one)
        device.act({ kind: 'interrupt', causes: 1 })
      })
    }
    rig.machine.start(() => {
      for (let index = 0; index < requests; index++) {
        rig.kernel.psCreateSystemThread(() => this.request(index))
      }
    })
  }
}

describe('an application over a hostile device', () => {
  const story = fc.record({
    acts: fc.array(act, { maxLength: 12 }),
    requests: fc.integer({ min: 1, max: 6 }),
    seed: fc.option(fc.nat(1000), { nil: undefined }),
  })

  /** What holds whatever the device did: requests ended once, in their time, and touched only what is theirs. */
  const judge = (stack: Stack, requests: number, began: number): void => {
    expect(stack.ends.map((ends) => ends.length)).toEqual(Array(requests).fill(1))
    for (const { status, movedBytes } of stack.ends.flat()) {
      expect(movedBytes).toBe(status === 'SUCCESS' ? SECTOR : 0)
    }
    expect(stack.overruns).toBe(0)
    expect(stack.lastEndSeconds - began).toBeLessThan(BOUND_SECONDS)
    const { kernel, adapter } = stack.rig
    expect([kernel.parts.files.count, kernel.nt.handles.count]).toEqual([0, 0])
    expect([adapter.outCount, stack.rig.unit.waitingCount, adapter.counts.strayCompletions]).toEqual([
      0, 0, 0,
    ])
    kernel.parts.pool.check()
  }
  const isGivenUp = ({ rig }: Stack): boolean =>
    rig.adapter.log.some((line) => line.startsWith('the device is given up'))

  it('has every request end once, in the time of its tries, and its disk back when the device is honest again', () => {
    fc.assert(
      fc.property(story, ({ acts, requests, seed }) => {
        const stack = new Stack(seed)
        stack.start()
        const began = stack.seconds
        stack.play(acts, requests)
        judge(stack, requests, began)
        stack.honestly(() => stack.request(1))
        expect(stack.ends.at(-1)?.[0]?.status).toBe(isGivenUp(stack) ? 'NO_SUCH_DEVICE' : 'SUCCESS')
      }),
      { numRuns: 40 },
    )
  })

  it('believes nothing of a device that lies about itself, tears its configuration, sticks or vanishes, for ever', () => {
    const lies = fc.record({
      acts: fc.array(fc.oneof(act, { arbitrary: lie, weight: 3 }), { minLength: 1, maxLength: 12 }),
      requests: fc.integer({ min: 1, max: 6 }),
      seed: fc.option(fc.nat(1000), { nil: undefined }),
    })
    let givenUp = 0
    let back = 0
    fc.assert(
      fc.property(lies, ({ acts, requests, seed }) => {
        const stack = new Stack(seed)
        stack.start()
        const began = stack.seconds
        stack.play(acts, requests)
        judge(stack, requests, began)
        stack.reform()
        // There is no port driver's FDO here to tell the disk: whoever asks for the length hears the new one.
        const length = stack.length()
        stack.honestly(() => stack.request(1))
        const status = stack.ends.at(-1)?.[0]?.status
        if (isGivenUp(stack)) {
          givenUp++
          expect(status).toBe('NO_SUCH_DEVICE')
        } else {
          back++
          expect([status, length]).toEqual(['SUCCESS', 128])
        }
      }),
      { numRuns: 50 },
    )
    // Both happened.
    expect(Math.min(givenUp, back)).toBeGreaterThan(5)
  })

  it('keeps its disk though the device breaks again and again, where it works in between', () => {
    const stack = new Stack()
    stack.start()
    for (let round = 0; round < 12; round++) {
      stack.device.act({ kind: 'needs-reset' })
      stack.honestly(() => stack.request(1))
    }
    expect(stack.ends.flat().map(({ status }) => status)).toEqual(Array(12).fill('SUCCESS'))
    expect(isGivenUp(stack)).toBe(false)
  })

  it('hears an error, and never a success, of a device that only falls silent', () => {
    for (const seed of [undefined, 1, 6]) {
      const stack = new Stack(seed)
      stack.start()
      stack.play([], 6)
      expect(stack.ends.map((ends) => ends.length)).toEqual(Array(6).fill(1))
      expect(stack.ends.flat().map(({ status }) => status)).not.toContain('SUCCESS')
      // A device that finishes its resets loses nothing and is not given up.
      expect(stack.rig.adapter.counts).toMatchObject({ orphans: 0, pagesOnLoan: 0 })
    }
  })

  it('plays the same again from the same seed', () => {
    const acts: HostileAct[] = [
      { kind: 'scribble', seed: 6 },
      { kind: 'leap', by: 3 },
      { kind: 'needs-reset' },
    ]
    const [first, second] = [1, 2].map(() => {
      const stack = new Stack(6)
      stack.start()
      stack.play(acts, 4)
      return [stack.ends, stack.seconds, stack.rig.adapter.log, stack.rig.adapter.violations.entries()]
    })
    expect(second).toEqual(first)
  })
})
