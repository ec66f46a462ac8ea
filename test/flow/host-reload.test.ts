import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import { type MachineDisk, WindowsMachine } from '../../bench/windows-machine.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { UserFile } from '../../guest/user.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import { MmioTransport } from '../../host/virtio/mmio.ts'
import { APIC_2010 } from '../../hypervisor/apic-profile.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Clock, HostPlatform } from '../../protocol/platform.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { opened } from '../host/disk-subjects.ts'

/** The line that the bench gives its first disk. */
const LINE = 5

/** A clock for one life of a device: once that is over, turns it still has queued do nothing. */
class Life implements Clock {
  readonly #clock: Clock
  over: boolean

  constructor(clock: Clock) {
    this.#clock = clock
    this.over = false
  }

  now = () => this.#clock.now()
  defer = (work: () => void) => this.#clock.defer(() => this.#unlessOver(work))
  after = (us: number, work: () => void) => this.#clock.after(us, () => this.#unlessOver(work))
  external: Clock['external'] = (why, underWay) => this.#clock.external(why, underWay)
  arrive: Clock['arrive'] = (source, value) => this.#clock.arrive(source, value)

  #unlessOver(work: () => void): void {
    if (!this.over) work()
  }
}

/** A machine whose host side can be saved, thrown away, and loaded into objects that are new. */
class ReloadedStack {
  readonly lines: string[]
  readonly clock: VirtualClock
  readonly windows: WindowsMachine
  readonly disk: MachineDisk
  readonly #backend: DiskBackend
  #platform: HostPlatform | null
  #life: Life
  #transport: MmioTransport
  readonly #names: Map<number, number>
  #taken: number

  constructor(backend: DiskBackend, seed: number) {
    this.lines = []
    this.#names = new Map()
    this.#taken = 0
    const trace = { on: true, emit: (event: TraceEvent) => this.#told(event) }
    this.clock = new VirtualClock({ trace })
    this.windows = new WindowsMachine({
      clock: this.clock,
      trace,
      random: seededRandom(seed),
      windows: WINDOWS_VERSIONS[7],
      profile: APIC_2010,
      virtio: '1.3',
      memoryBytes: 16 * 2 ** 20,
      preemption: false,
    })
    this.#backend = backend
    this.#platform = null
    this.#life = new Life(this.clock)
    this.disk = this.windows.addDevice((platform, dma) => {
      this.#platform = platform
      return this.#device(dma)
    })
    this.#transport = this.disk.transport
  }

  /** A ring counts what it takes from its own start: here requests are called by their number in the run. */
  #told(event: TraceEvent): void {
    if (event.name === 'take') this.#names.set(event.id, ++this.#taken)
    const told = 'id' in event ? { ...event, id: this.#names.get(event.id) ?? 0 } : event
    this.lines.push(JSON.stringify(told))
  }

  /** What stands behind the registers from now on knows nothing but what was saved, and that through text. */
  reload(): void {
    const text = JSON.stringify(this.#transport.save())
    this.#life.over = true
    this.#life = new Life(this.clock)
    const transport = new MmioTransport({
      platform: this.#own,
      device: this.#device(new DmaSpace(this.windows.memory)),
      line: this.windows.machine.line(LINE),
      violated: (violation) => this.disk.violations.record(violation),
    })
    expect(transport.load(JSON.parse(text))).toBeNull()
    this.#transport = transport
    this.disk.registers.read = (offset, width) => transport.read(offset, width)
    this.disk.registers.write = (offset, width, value) => transport.write(offset, width, value)
  }

  get #own(): HostPlatform {
    if (this.#platform === null) throw new Error('before the disk was added')
    return { ...this.#platform, clock: this.#life }
  }

  #device(dma: DmaSpace): BlkDevice {
    return new BlkDevice({ platform: this.#own, dma, backend: this.#backend, version: '1.3', limits: {} })
  }
}

/** Boots, writes and reads; before each turn for which `when` says so the host side is reloaded. */
async function traced(
  seed: number,
  when: (turn: number) => boolean,
): Promise<{ lines: string[]; turns: number; reloads: number }> {
  const stack = new ReloadedStack(await opened('memory:size=1M'), seed)
  const { user } = stack.windows
  const random = seededRandom(seed).stream('requests')
  const result = stack.windows.start(function* () {
    yield* stack.windows.boot()
    const file = yield* user.open('\\\\.\\PhysicalDrive0')
    if (!(file instanceof UserFile)) throw new Error('not opened')
    const buffer = user.allocate(8192)
    for (let i = 0; i < 12; i++) {
      const at = random.below(2000) * 512
      user.put(buffer, new Uint8Array(8192).fill(i + 1))
      yield* file.write(buffer, 4096, at)
      user.put(buffer, new Uint8Array(8192))
      yield* file.read(buffer, 4096, at)
      if (user.get(buffer, 4096)?.every((byte) => byte === i + 1) !== true) throw new Error('wrong data')
    }
    yield* file.close()
    return true
  })
  let reloads = 0
  let turns = 0
  for (; ; turns++) {
    if (when(turns)) {
      stack.reload()
      reloads++
    }
    if (!stack.clock.step()) break
  }
  expect(result.value).toBe(true)
  expect(stack.disk.violations.entries()).toEqual([])
  return { lines: stack.lines, turns, reloads }
}

describe('the host side, saved, thrown away and loaded into new objects', () => {
  it('goes on with the same trace to the last byte, at whichever turn it happens', async () => {
    const { lines, turns } = await traced(1, () => false)
    expect(turns).toBeGreaterThan(40)
    expect(lines.filter((line) => line.includes('"take"')).length).toBeGreaterThan(24)
    for (let at = 0; at < turns; at++) {
      const once = await traced(1, (turn) => turn === at)
      expect(once.reloads).toBe(1)
      expect(once.lines).toEqual(lines)
    }
  })

  it('also when it happens again and again', async () => {
    for (const seed of [1, 2, 3]) {
      const { lines } = await traced(seed, () => false)
      const often = await traced(seed, (turn) => turn % 3 === seed - 1)
      expect(often.reloads).toBeGreaterThan(10)
      expect(often.lines).toEqual(lines)
    }
  })
})
