import type { AccessWidth } from '../../protocol/platform.ts'
import { LiteralBlkDevice, type Personality } from './literal-blk-device.ts'
import type { Requirement, RequirementCase } from './requirement-case.ts'
import { hold, verdictOf } from './requirement-case.ts'

/** The machine a driver is started on. Its one device is played by the suite. */
export interface DriverMachine {
  /** All guest memory, from address 0 on; zeroed. */
  readonly bytes: Uint8Array<ArrayBuffer>
  /** The device's registers, `offset` from where they begin. */
  read(offset: number, width: AccessWidth): number
  write(offset: number, width: AccessWidth, value: number): void
}

/** A virtio-mmio block driver on that machine. What it puts off is done when a call returns, timers included. */
export interface DriverUnderTest {
  /** Looks for the device and initializes it, as far as that gets. */
  start(): void
  /** The line is up: the service routine. */
  interrupt(): void
  /** Asks for something of `sectors` sectors, buffers of its own; false when the ring has no room. */
  ask(op: 'read' | 'write' | 'flush', sector: number, sectors: number): boolean
  /** Requests that were asked for and are over, however they ended. */
  readonly ended: number
  /** Lets go of the device for good. */
  stop(): void
  /** It judges what it is asked by the capacity; otherwise whoever asks does. */
  readonly judgesRange: boolean
}

export interface DriverSubject {
  readonly name: string
  /** A driver nobody has started. */
  open(machine: DriverMachine): DriverUnderTest
}

export type DriverCase = RequirementCase<DriverSubject>

const ROUNDS = 100

/** A driver and the literal device it was given. */
export class DriverScene {
  readonly device: LiteralBlkDevice
  readonly driver: DriverUnderTest

  constructor(subject: DriverSubject, personality: Personality) {
    this.device = new LiteralBlkDevice(personality)
    this.driver = subject.open(this.device)
  }

  /** Serves and interrupts until there is nothing more to serve. */
  settle(): void {
    for (let left = ROUNDS; left > 0; left--) {
      const served = this.device.serve()
      this.deliver()
      if (served === 0) return
    }
    hold(false, 'the driver asks without end')
  }

  /** Interrupts while the line is up. */
  deliver(): void {
    for (let left = ROUNDS; left > 0 && this.device.level(); left--) this.driver.interrupt()
  }

  /** @throws Broken unless the device runs and whatever the driver asks of its own accord is answered. */
  start(): this {
    this.driver.start()
    this.settle()
    hold(this.device.running, `the driver does not start: status ${this.device.status}`)
    return this
  }

  /** Reads and writes, a few sectors each, until the ring has been around, then a flush. */
  work(): this {
    for (let i = 0; i < 2 * this.device.size; i++) {
      const op = i % 2 === 0 ? 'write' : 'read'
      if (!this.driver.ask(op, 8 * (i % 8), 1 + (i % 5))) {
        this.settle()
        hold(this.driver.ask(op, 8 * (i % 8), 1 + (i % 5)), 'an empty ring has no room')
      }
    }
    this.settle()
    this.driver.ask('flush', 0, 0)
    this.settle()
    return this
  }
}

export interface DriverCaseParts extends Omit<Requirement, 'party' | 'gate' | 'level'> {
  readonly level?: 'should'
  readonly gate?: Requirement['gate']
  /** @throws Broken or Inapplicable. */
  readonly body: (scene: (personality?: Personality) => DriverScene) => void
}

export function driverCase(parts: DriverCaseParts): DriverCase {
  const { body, gate = [], level = 'must', ...requirement } = parts
  return {
    ...requirement,
    party: 'driver',
    level,
    gate,
    run: (subject) =>
      verdictOf(async () => {
        const scenes: DriverScene[] = []
        const scene = (personality: Personality = {}) => {
          const one = new DriverScene(subject, personality)
          scenes.push(one)
          return one
        }
        let broken: unknown = null
        try {
          body(scene)
        } catch (error) {
          broken = error
        }
        // What went wrong first says more than what came of it.
        const trouble = scenes.map(({ device }) => device.trouble).find((one) => one !== null) ?? broken
        if (trouble !== null) throw trouble
      }),
  }
}
