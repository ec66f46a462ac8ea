/** The whole stack over a vhost-user daemon: application, class driver, port, miniport, MMIO, front-end, socket. */

import { seededRandom } from '../../bench/random.ts'
import { NativeFrontEndEdge, sharedGuestMemory } from '../../bench/vhost-user-edge.ts'
import { type MachineDisk, WindowsMachine } from '../../bench/windows-machine.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { FrontEndDevice } from '../../host/vhost-user/front-end.ts'
import type { DaemonFacts } from '../../host/vhost-user/front-end-handshake.ts'
import { DaemonLink } from '../../host/vhost-user/front-end-link.ts'
import { APICV } from '../../hypervisor/apic-profile.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { NO_TRACE } from '../../protocol/trace.ts'

export interface DaemonMachineSetup {
  readonly path: string
  readonly patienceMs?: number
  readonly reconnectMs?: number
  readonly write?: boolean
}

/** A machine that has booted, with one disk: the daemon's. */
export class DaemonMachine {
  readonly windows: WindowsMachine
  readonly device: FrontEndDevice
  readonly disk: MachineDisk
  readonly facts: DaemonFacts
  readonly link: DaemonLink
  readonly troubles: string[]
  readonly #end: () => void

  private constructor(parts: {
    windows: WindowsMachine
    device: FrontEndDevice
    disk: MachineDisk
    facts: DaemonFacts
    link: DaemonLink
    troubles: string[]
    end: () => void
  }) {
    this.windows = parts.windows
    this.device = parts.device
    this.disk = parts.disk
    this.facts = parts.facts
    this.link = parts.link
    this.troubles = parts.troubles
    this.#end = parts.end
  }

  /** @throws the one line that says why there is none */
  static async boot(setup: DaemonMachineSetup): Promise<DaemonMachine> {
    const { path, patienceMs = 10_000, reconnectMs = 0, write = true } = setup
    const clock = new VirtualClock()
    const random = seededRandom(1)
    const troubles: string[] = []
    const edge = new NativeFrontEndEdge()
    const platform = { clock, random, trace: NO_TRACE, path: 'disk0' }
    const link = new DaemonLink({
      platform,
      edge,
      path,
      patienceMs,
      reconnectMs,
      troubled: (line) => troubles.push(line),
    })
    let opened: DaemonFacts | string = 'nothing was opened'
    link.open((facts) => {
      opened = facts
    })
    await clock.run()
    const facts = opened as DaemonFacts | string
    if (typeof facts === 'string') {
      edge.close()
      throw new Error(facts)
    }
    const shared = sharedGuestMemory(64 * 2 ** 20)
    const windows = new WindowsMachine({
      clock,
      trace: NO_TRACE,
      random,
      windows: WINDOWS_VERSIONS[7],
      profile: APICV,
      virtio: '1.3',
      memoryBytes: 64 * 2 ** 20,
      memory: shared.memory,
      preemption: false,
    })
    let device: FrontEndDevice | null = null
    const disk = windows.addDevice((own, dma) => {
      device = new FrontEndDevice({
        platform: own,
        dma,
        regions: shared.regions,
        link,
        facts,
        version: '1.3',
        queueSize: 256,
        write,
      })
      return device
    })
    if (device === null) throw new Error('no device was made')
    await windows.run(function* () {
      yield* windows.boot()
      return true
    })
    const end = (): void => {
      shared.close()
      edge.close()
    }
    return new DaemonMachine({ windows, device, disk, facts, link, troubles, end })
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.device.close(resolve))
    await this.windows.machine.run()
    await closed
    this.#end()
  }
}
