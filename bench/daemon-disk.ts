import type { DiskBackend, DiskFacts, DiskIo, DiskListener } from '../host/disk/backend.ts'
import { type DaemonPlace, daemonPlace, VHOST_USER } from '../host/disk/daemon.ts'
import { readDiskSpec } from '../host/disk/registry.ts'
import { FrontEndDevice } from '../host/vhost-user/front-end.ts'
import type { SharedRegion } from '../host/vhost-user/front-end-edge.ts'
import type { DaemonFacts } from '../host/vhost-user/front-end-handshake.ts'
import { DaemonLink } from '../host/vhost-user/front-end-link.ts'
import type { VirtualClock } from '../hypervisor/clock.ts'
import { uvAbsent } from '../native/uv-loop.ts'
import type { HostPlatform } from '../protocol/platform.ts'
import { hasFeature } from '../protocol/version.ts'
import { BlkConfig, BlkFeature, SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../protocol/virtio/features.ts'
import { Window } from '../protocol/window.ts'
import { NativeFrontEndEdge } from './vhost-user-edge.ts'
import type { MakeDevice } from './windows-machine.ts'

/** What its device needs of the machine it goes into. */
export interface DaemonDeviceSetup {
  /** The guest's memory, as the daemon gets it. */
  readonly regions: readonly SharedRegion[]
  readonly version: VirtioVersion
  readonly queueSize: number
  /** Without leave to write, the guest is offered a read-only disk: there is no overlay above a device. */
  readonly write: boolean
}

/** A daemon that has said what it is. */
export class OpenedDaemon {
  readonly #link: DaemonLink
  readonly #facts: DaemonFacts
  readonly #edge: NativeFrontEndEdge
  #device: FrontEndDevice | null

  constructor(link: DaemonLink, facts: DaemonFacts, edge: NativeFrontEndEdge) {
    this.#link = link
    this.#facts = facts
    this.#edge = edge
    this.#device = null
  }

  /** What its configuration says; all that can be known without reading it. */
  get facts(): DiskFacts {
    const config = new Window(this.#facts.config)
    const has = (feature: { readonly bit: number }) => hasFeature(this.#facts.offered, feature.bit)
    const blockBytes = has(BlkFeature.BLK_SIZE) ? config.le32(BlkConfig.blk_size) : SECTOR_BYTES
    const exponent = has(BlkFeature.TOPOLOGY) ? config.u8(BlkConfig.physical_block_exp) : 0
    return {
      lengthBytes: config.le64(BlkConfig.capacity) * SECTOR_BYTES,
      blockBytes,
      physicalBlockBytes: blockBytes * 2 ** exponent,
      readOnly: has(BlkFeature.RO),
      medium: true,
      volatileCache: has(BlkFeature.FLUSH),
      serial: '',
      can: {
        fua: false,
        zero: has(BlkFeature.WRITE_ZEROES),
        discard: has(BlkFeature.DISCARD),
        erase: has(BlkFeature.SECURE_ERASE),
        resize: false,
        extents: false,
      },
      synchronous: false,
      privateLoans: false,
    }
  }

  /** How often it was connected to: more than once where it went away and came back. */
  get connections(): number {
    return this.#link.connections
  }

  /** Requests it served the guest. */
  get served(): number {
    return this.#device?.served ?? 0
  }

  /** The device in front of it: one, for one machine. */
  device(setup: DaemonDeviceSetup): MakeDevice {
    return (platform, dma) => {
      this.#device = new FrontEndDevice({ platform, dma, link: this.#link, facts: this.#facts, ...setup })
      return this.#device
    }
  }

  close(finished: () => void): void {
    const end = (): void => {
      this.#link.close()
      this.#edge.close()
      finished()
    }
    if (this.#device === null) end()
    else this.#device.close(end)
  }
}

/** A disk that is elsewhere: its facts, and no way to its data but through its device. */
export class DaemonDisk implements DiskBackend {
  readonly facts: DiskFacts
  readonly #daemon: OpenedDaemon

  constructor(daemon: OpenedDaemon) {
    this.facts = daemon.facts
    this.#daemon = daemon
  }

  submit(io: DiskIo): void {
    io.answer('unsupported')
  }

  watch(_listener: DiskListener): () => void {
    return () => {}
  }

  close(finished: () => void): void {
    this.#daemon.close(finished)
  }
}

/** Where the daemon of a spec is; null when the spec names a disk. */
export function daemonOf(spec: string): DaemonPlace | string | null {
  const read = readDiskSpec(spec)
  const [layer] = read.ok ? read.value.layers : []
  if (layer?.kind !== VHOST_USER.kind) return null
  const place = daemonPlace(layer)
  return place.ok ? place.value : place.error
}

/** Connects to a daemon and learns what it is; one line when that cannot be. */
export async function openDaemon(
  place: DaemonPlace,
  platform: HostPlatform,
  clock: Pick<VirtualClock, 'run'>,
  troubled: (line: string) => void,
): Promise<OpenedDaemon | string> {
  const absent = uvAbsent()
  if (absent !== null) return absent
  const { socket, patienceMs, reconnectMs } = place
  const edge = new NativeFrontEndEdge()
  const link = new DaemonLink({ platform, edge, path: socket, patienceMs, reconnectMs, troubled })
  const answers: (DaemonFacts | string)[] = []
  link.open((answer) => answers.push(answer))
  await clock.run()
  const [facts = 'nothing came of the opening'] = answers
  if (typeof facts !== 'string') return new OpenedDaemon(link, facts, edge)
  link.close()
  edge.close()
  return facts
}
