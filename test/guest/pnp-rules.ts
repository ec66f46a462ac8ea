import { NtStatus, ntSuccess } from '../../guest/kernel/nt-status.ts'
import { DeviceRelation, PnpMinor, pnpMinorName } from '../../guest/kernel/pnp/pnp-minor.ts'
import type { PnpEvent } from './pnp-rig.ts'
import { CLASS, type DeviceSpec } from './scripted-drivers.ts'

/** States of windows-io.md 2.5; a device whose START failed is not started. */
type State =
  | 'NotStarted'
  | 'Started'
  | 'StopPending'
  | 'Stopped'
  | 'RemovePending'
  | 'SurpriseRemoved'
  | 'Removed'

/** In which states a minor may be sent, and where its success (or, after the bar, its failure) leads. */
const RULES: { readonly [minor: number]: { readonly [state in State]?: readonly [State, State] } } = {
  [PnpMinor.START_DEVICE]: { NotStarted: ['Started', 'NotStarted'], Stopped: ['Started', 'Stopped'] },
  [PnpMinor.QUERY_STOP_DEVICE]: { Started: ['StopPending', 'Started'] },
  [PnpMinor.STOP_DEVICE]: { StopPending: ['Stopped', 'Stopped'] },
  [PnpMinor.CANCEL_STOP_DEVICE]: { StopPending: ['Started', 'Started'], Started: ['Started', 'Started'] },
  [PnpMinor.QUERY_REMOVE_DEVICE]: { Started: ['RemovePending', 'Started'] },
  [PnpMinor.CANCEL_REMOVE_DEVICE]: { RemovePending: ['Started', 'Started'], Started: ['Started', 'Started'] },
  [PnpMinor.SURPRISE_REMOVAL]: {
    Started: ['SurpriseRemoved', 'SurpriseRemoved'],
    StopPending: ['SurpriseRemoved', 'SurpriseRemoved'],
    Stopped: ['SurpriseRemoved', 'SurpriseRemoved'],
    RemovePending: ['SurpriseRemoved', 'SurpriseRemoved'],
  },
  [PnpMinor.REMOVE_DEVICE]: {
    NotStarted: ['Removed', 'Removed'],
    RemovePending: ['Removed', 'Removed'],
    SurpriseRemoved: ['Removed', 'Removed'],
    // A PDO that its bus kept, when the bus goes itself.
    Removed: ['Removed', 'Removed'],
  },
  [PnpMinor.QUERY_PNP_DEVICE_STATE]: { Started: ['Started', 'Started'] },
  [PnpMinor.FILTER_RESOURCE_REQUIREMENTS]: {
    NotStarted: ['NotStarted', 'NotStarted'],
    Stopped: ['Stopped', 'Stopped'],
  },
}
/** Asked before a stack is built; capabilities once more when it has started. */
const IDENTITY: ReadonlySet<number> = new Set([
  PnpMinor.QUERY_ID,
  PnpMinor.QUERY_DEVICE_TEXT,
  PnpMinor.QUERY_BUS_INFORMATION,
])
const CANCELS: { readonly [minor: number]: number } = {
  [PnpMinor.QUERY_STOP_DEVICE]: PnpMinor.CANCEL_STOP_DEVICE,
  [PnpMinor.QUERY_REMOVE_DEVICE]: PnpMinor.CANCEL_REMOVE_DEVICE,
}

class Tracked {
  readonly spec: DeviceSpec
  readonly parent: Tracked | null
  state: State = 'NotStarted'
  /** AddDevice calls so far, and layers that attached. */
  added: string[] = []
  attached: string[] = []
  /** Requests under way: address and the layer that has it. */
  readonly under = new Map<number, { readonly minor: number; layer: number; done: boolean }>()
  /** What must come next, after a query that was refused. */
  owed: number | null = null
  asked = 0
  startActs: string[] = []

  constructor(spec: DeviceSpec, parent: Tracked | null) {
    this.spec = spec
    this.parent = parent
  }

  /** Names of its layers in AddDevice's order. */
  get order(): string[] {
    const { spec } = this
    const filtered = spec.className === CLASS.name
    return [
      ...(spec.lower ?? []).map((_, index) => `lower${index}`),
      ...(filtered ? ['classLow'] : []),
      'function',
      ...(spec.upper ?? []).map((_, index) => `upper${index}`),
      ...(filtered ? ['classUp'] : []),
    ]
  }
}

export interface RuleOptions {
  /** STARTs of several devices may be under way at once. */
  readonly overlapping: boolean
  /** QUERY_ID asks for a ContainerID and DEVICE_ENUMERATED is sent. */
  readonly containerId: boolean
}

/** windows-io.md 2.1 to 2.5, told against a record of what drivers were sent. Answers what was broken. */
export class PnpRules {
  readonly #options: RuleOptions
  readonly #devices = new Map<string, Tracked>()
  readonly #root: DeviceSpec
  readonly broken: string[] = []
  /** Whether a file is open on a device: the rig's own knowledge, at that moment. */
  readonly #isOpen: (key: string) => boolean

  constructor(root: DeviceSpec, options: RuleOptions, isOpen: (key: string) => boolean) {
    this.#root = root
    this.#options = options
    this.#isOpen = isOpen
  }

  /** Takes the events that came since the last time. */
  see(events: readonly PnpEvent[]): void {
    for (const event of events) if (!event.key.startsWith('root')) this.#event(event)
  }

  #device(key: string): Tracked {
    const known = this.#devices.get(key)
    if (known !== undefined) return known
    const device = this.#make(this.#root, key.split('#')[0] as string, null)
    if (device === null) throw new Error(`${key} is not in the tree`)
    this.#devices.set(key, device)
    return device
  }

  #make(spec: DeviceSpec, id: string, parent: DeviceSpec | null): Tracked | null {
    if (spec.id === id) return new Tracked(spec, parent === null ? null : this.#newest(parent.id))
    for (const child of spec.children ?? []) {
      const found = this.#make(child, id, spec)
      if (found !== null) return found
    }
    return null
  }

  #newest(id: string): Tracked | null {
    let newest: Tracked | null = null
    for (const device of this.#devices.values()) if (device.spec.id === id) newest = device
    return newest
  }

  #children(parent: Tracked): Tracked[] {
    return [...this.#devices.values()].filter((device) => device.parent === parent)
  }

  #event(event: PnpEvent): void {
    const device = this.#device(event.key)
    const say = (what: string): void => {
      this.broken.push(`${event.key} ${event.layer} ${pnpMinorName(event.minor)} (${device.state}): ${what}`)
    }
    if (event.irql !== 0 && event.kind !== 'completed') say(`at IRQL ${event.irql}`)
    if (!event.threaded) say('not in a system thread')
    if (event.kind === 'add') this.#added(device, event, say)
    else if (event.kind === 'acted') device.startActs.push(event.layer)
    else if (event.kind === 'completed') this.#completed(device, event, say)
    else if (device.under.has(event.irp)) this.#passed(device, event, say)
    else this.#sent(device, event, say)
  }

  #added(device: Tracked, event: PnpEvent, say: (what: string) => void): void {
    if (device.added.length === 0 || device.state === 'Removed') {
      device.added = []
      device.attached = []
      device.state = 'NotStarted'
    }
    if (device.order[device.added.length] !== event.layer) say(`AddDevice out of order: ${device.order}`)
    device.added.push(event.layer)
    const layer = this.#layerSpec(device, event.layer)
    if (layer?.add !== 'fail') device.attached.push(event.layer)
    if (device.parent !== null && device.parent.state !== 'Started')
      say('AddDevice below a bus that is not started')
  }

  #layerSpec(
    device: Tracked,
    name: string,
  ): DeviceSpec | NonNullable<DeviceSpec['lower']>[number] | undefined {
    const index = Number(name.slice(5))
    if (name.startsWith('lower')) return device.spec.lower?.[index]
    if (name.startsWith('upper')) return device.spec.upper?.[index]
    return name === 'function' ? device.spec : undefined
  }

  /** A request that the manager sent: it is at the top. */
  #sent(device: Tracked, event: PnpEvent, say: (what: string) => void): void {
    const { minor, argument1 } = event
    if (event.status !== NtStatus.NOT_SUPPORTED) say(`arrived with ${event.status.toString(16)}`)
    if (event.information !== 0) say('arrived with Information')
    if (event.layer !== (device.attached.at(-1) ?? 'pdo'))
      say(`not sent to the top, ${device.attached.at(-1)}`)
    if (device.under.size > 0) say('while another is under way')
    const others = [...this.#devices.values()].filter((other) => other !== device && other.under.size > 0)
    for (const other of others) {
      const starts = [...other.under.values()].every((one) => one.minor === PnpMinor.START_DEVICE)
      if (!this.#options.overlapping || !starts) say(`while ${other.spec.id} has one under way`)
    }
    device.under.set(event.irp, { minor, layer: device.attached.length - 1, done: false })
    this.#legal(device, event, say)
    this.#family(device, minor, event, say)
    if (minor === PnpMinor.QUERY_ID && argument1 === 5 && !this.#options.containerId) say('ContainerID asked')
    if (minor === PnpMinor.START_DEVICE) device.startActs = []
  }

  #legal(device: Tracked, event: PnpEvent, say: (what: string) => void): void {
    const { minor, argument1 } = event
    if (device.owed !== null && device.owed !== minor) say(`${pnpMinorName(device.owed)} is owed`)
    if (CANCELS[PnpMinor.QUERY_STOP_DEVICE] === minor || CANCELS[PnpMinor.QUERY_REMOVE_DEVICE] === minor) {
      // A spurious one is only sent to the stack that refused.
      if (device.state === 'Started' && device.owed !== minor) say('nobody had asked')
    }
    device.owed = null
    const rule = RULES[minor]
    if (rule !== undefined && rule[device.state] === undefined) say('not in this state')
    if (IDENTITY.has(minor)) {
      device.asked++
      if (device.added.length > 0) say('asked after a stack was built')
    }
    if (minor === PnpMinor.DEVICE_ENUMERATED) {
      if (!this.#options.containerId) say('sent before Windows 7')
      if (device.asked === 0 || device.added.length > 0) say('not between identity and drivers')
    }
    if (
      minor === PnpMinor.QUERY_DEVICE_RELATIONS &&
      argument1 === DeviceRelation.BUS &&
      device.state !== 'Started'
    ) {
      say('a bus that is not started was asked for its children')
    }
  }

  /** Orders between a device and those above and below it. */
  #family(device: Tracked, minor: number, event: PnpEvent, say: (what: string) => void): void {
    const children = this.#children(device)
    const inState = (...states: State[]): string[] =>
      children
        .filter((child) => states.includes(child.state))
        .map((child) => `${child.spec.id} is ${child.state}`)
    if (minor === PnpMinor.START_DEVICE && device.parent !== null && device.parent.state !== 'Started') {
      say('below a bus that is not started')
    }
    if (minor === PnpMinor.QUERY_REMOVE_DEVICE || minor === PnpMinor.QUERY_STOP_DEVICE) {
      const bad = inState(
        'Started',
        'Stopped',
        ...(minor === PnpMinor.QUERY_REMOVE_DEVICE ? [] : (['RemovePending'] as const)),
      )
      if (bad.length > 0) say(`before its children: ${bad}`)
    }
    if (minor === PnpMinor.STOP_DEVICE && inState('Started', 'StopPending').length > 0)
      say('before its children')
    if (minor === PnpMinor.SURPRISE_REMOVAL && inState('Started', 'Stopped').length > 0)
      say('before its children')
    if (minor === PnpMinor.REMOVE_DEVICE) {
      const bad = children.filter((child) => child.state !== 'Removed' && child.added.length > 0)
      if (bad.length > 0) say(`before its children ${bad.map((child) => child.spec.id)}`)
      if (this.#isOpen(event.key)) say('while a file is open')
    }
  }

  /** A driver passed it on: one layer at a time, downwards. */
  #passed(device: Tracked, event: PnpEvent, say: (what: string) => void): void {
    const request = device.under.get(event.irp)
    if (request === undefined) return
    request.layer--
    if (event.layer !== (request.layer < 0 ? 'pdo' : device.attached[request.layer])) say('out of order')
  }

  #completed(device: Tracked, event: PnpEvent, say: (what: string) => void): void {
    const { minor, status } = event
    if (!device.under.delete(event.irp)) say('completed twice')
    const rule = RULES[minor]?.[device.state]
    if (rule !== undefined) device.state = ntSuccess(status) ? rule[0] : rule[1]
    const cancel = CANCELS[minor]
    if (cancel !== undefined && !ntSuccess(status)) device.owed = cancel
    if (minor === PnpMinor.START_DEVICE && ntSuccess(status)) {
      // Bottom-up: whoever stands below had started its part first.
      const expected = device.attached.join()
      if (device.startActs.join() !== expected) say(`started in the order ${device.startActs}`)
    }
    if (minor === PnpMinor.REMOVE_DEVICE) {
      device.attached = []
      device.added = []
    }
  }

  /** After everything has settled: no query hangs in the air. */
  settled(): void {
    for (const [key, device] of this.#devices) {
      if (device.under.size > 0) this.broken.push(`${key} has a request under way`)
      if (device.owed !== null) this.broken.push(`${key} is owed a ${pnpMinorName(device.owed)}`)
      const resting: readonly State[] = ['NotStarted', 'Started', 'SurpriseRemoved', 'Removed']
      if (!resting.includes(device.state)) this.broken.push(`${key} was left ${device.state}`)
    }
  }
}
