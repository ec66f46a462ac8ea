import type { DeviceSpec, LayerSpec } from './scripted-drivers.ts'

type Problem = 0 | 10 | 22 | 31

interface Instance {
  readonly spec: DeviceSpec
  readonly parent: Instance | null
  started: boolean
  problem: Problem
  opens: number
  leaving: boolean
  children: Instance[]
}

/** What a tree of made-up devices must look like after each thing done to it: no kernel, only consequences. */
export class PnpOracle {
  readonly plugged: Set<string>
  readonly #top: Instance
  readonly #opens: Instance[] = []

  constructor(root: DeviceSpec) {
    this.plugged = new Set(all(root).map((spec) => spec.id))
    this.#top = instance(root, null)
  }

  boot(): void {
    this.#bringUp(this.#top)
  }

  #bringUp(device: Instance): void {
    const layers = layersOf(device.spec)
    device.started = false
    if (layers.some((layer) => layer.add === 'fail')) device.problem = 31
    else if (layers.some((layer) => layer.start === 'fail' || layer.start === 'pend-fail'))
      device.problem = 10
    else {
      device.problem = 0
      device.started = true
      this.#enumerate(device)
    }
  }

  #enumerate(bus: Instance): void {
    if (!bus.started) return
    for (const child of [...bus.children]) {
      if (!this.plugged.has(child.spec.id) && !child.leaving) this.#vanish(child)
    }
    for (const spec of bus.spec.children ?? []) {
      if (!this.plugged.has(spec.id) || bus.children.some((child) => child.spec === spec && !child.leaving))
        continue
      bus.children.push(instance(spec, bus))
    }
    for (const child of bus.children)
      if (!child.started && child.problem === 0 && !child.leaving) this.#bringUp(child)
  }

  #vanish(device: Instance): void {
    for (const one of subtree(device)) one.leaving = true
    this.#leave(device)
  }

  /** Goes once nothing below it is open. */
  #leave(device: Instance): void {
    if (subtree(device).some((one) => one.opens > 0)) return
    const siblings = device.parent?.children
    siblings?.splice(siblings.indexOf(device), 1)
  }

  #find(id: string): Instance | null {
    return subtree(this.#top).find((device) => device.spec.id === id && !device.leaving) ?? null
  }

  plug(id: string, there: boolean): void {
    if (there) this.plugged.add(id)
    else this.plugged.delete(id)
    const parent = subtree(this.#top).find(
      (device) => !device.leaving && device.spec.children?.some((one) => one.id === id),
    )
    if (parent !== undefined) this.#enumerate(parent)
  }

  rescan(): void {
    const scan = (device: Instance): void => {
      if (device.leaving) return
      this.#enumerate(device)
      for (const child of device.children) scan(child)
    }
    scan(this.#top)
    // The root lists its device for ever.
    if (!this.#top.started && this.#top.problem === 0) this.#bringUp(this.#top)
  }

  /** Why a removal is refused, or null. */
  #veto(device: Instance): string | null {
    const nodes = subtree(device)
    const refuses = nodes.some(
      (one) =>
        one.started && !one.leaving && layersOf(one.spec).some((layer) => layer.refuses?.includes('remove')),
    )
    if (refuses) return 'driver'
    return nodes.some((one) => one.opens > 0) ? 'open-handles' : null
  }

  /** `problem`: what it then has; 0 for one that a rescan brings back. */
  remove(id: string, problem: 0 | 22): string | null {
    const device = this.#find(id)
    if (device === null) return 'no-such-device'
    if (!device.started) {
      device.problem = problem
      return null
    }
    const veto = this.#veto(device)
    if (veto !== null) return veto
    device.started = false
    device.problem = problem
    device.children = []
    return null
  }

  enable(id: string): string | null {
    const device = this.#find(id)
    if (device === null) return 'no-such-device'
    if (device.started) return 'not-started'
    this.#bringUp(device)
    return null
  }

  rebalance(id: string): string | null {
    const device = this.#find(id)
    if (device === null) return 'no-such-device'
    if (!device.started) return 'not-started'
    const nodes = subtree(device).filter((one) => one.started && !one.leaving)
    return nodes.some((one) => layersOf(one.spec).some((layer) => layer.refuses?.includes('stop')))
      ? 'driver'
      : null
  }

  /** Whether an open succeeds. */
  open(id: string): boolean {
    const device = this.#find(id)
    if (device === null || !device.started) return false
    device.opens++
    this.#opens.push(device)
    return true
  }

  close(index: number): void {
    const [device] = this.#opens.splice(index, 1)
    if (device === undefined) return
    device.opens--
    if (!device.leaving) return
    let top = device
    while (top.parent?.leaving === true) top = top.parent
    this.#leave(top)
  }

  shown(): string[] {
    const lines: string[] = []
    const walk = (device: Instance, indent: string): void => {
      const status = device.leaving ? 'being removed' : device.started ? 'working' : 'not started'
      lines.push(`${indent}${device.spec.id} ${device.problem === 0 ? status : `problem ${device.problem}`}`)
      for (const child of [...device.children].sort((a, b) => (a.spec.id < b.spec.id ? -1 : 1)))
        walk(child, `${indent}  `)
    }
    walk(this.#top, '')
    return lines
  }
}

function instance(spec: DeviceSpec, parent: Instance | null): Instance {
  return { spec, parent, started: false, problem: 0, opens: 0, leaving: false, children: [] }
}

function subtree(device: Instance): Instance[] {
  return [device, ...device.children.flatMap(subtree)]
}

function layersOf(spec: DeviceSpec): LayerSpec[] {
  return [...(spec.lower ?? []), spec, ...(spec.upper ?? [])]
}

function all(spec: DeviceSpec): DeviceSpec[] {
  return [spec, ...(spec.children ?? []).flatMap(all)]
}
