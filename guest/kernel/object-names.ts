import type { DeviceObject } from './device-object.ts'
import { NtStatus } from './nt-status.ts'

/** Links followed before a name is given up: a loop ends. */
const LINKS_MAX = 32

export interface FoundObject {
  readonly device: DeviceObject
  /** What is left of the name, with its backslash; '' when nothing is. */
  readonly rest: string
}

/** The object manager's names: devices, and symbolic links. Case does not matter. */
export class ObjectNames {
  readonly #devices: Map<string, DeviceObject>
  readonly #links: Map<string, string>

  constructor() {
    this.#devices = new Map()
    this.#links = new Map()
  }

  insert(name: string, device: DeviceObject): NtStatus {
    if (!isName(name)) return NtStatus.OBJECT_NAME_INVALID
    const key = fold(name)
    if (this.#devices.has(key) || this.#links.has(key)) return NtStatus.OBJECT_NAME_COLLISION
    this.#devices.set(key, device)
    return NtStatus.SUCCESS
  }

  remove(name: string): void {
    this.#devices.delete(fold(name))
  }

  /** IoCreateSymbolicLink. */
  link(name: string, target: string): NtStatus {
    if (!isName(name) || !isName(target)) return NtStatus.OBJECT_NAME_INVALID
    const key = fold(name)
    if (this.#devices.has(key) || this.#links.has(key)) return NtStatus.OBJECT_NAME_COLLISION
    this.#links.set(key, target)
    return NtStatus.SUCCESS
  }

  /** IoDeleteSymbolicLink. */
  unlink(name: string): NtStatus {
    return this.#links.delete(fold(name)) ? NtStatus.SUCCESS : NtStatus.OBJECT_NAME_NOT_FOUND
  }

  /** Links, for a list of what can be opened: name and target. */
  get links(): ReadonlyMap<string, string> {
    return this.#links
  }

  /** The device that a name leads to: its longest beginning that is a device, links followed. */
  find(name: string): FoundObject | null {
    let path = name
    for (let links = 0; links <= LINKS_MAX; links++) {
      const parts = path.split('\\')
      let target: string | null = null
      for (let count = parts.length; count > 1 && target === null; count--) {
        const key = fold(parts.slice(0, count).join('\\'))
        const rest = parts
          .slice(count)
          .map((part) => `\\${part}`)
          .join('')
        const device = this.#devices.get(key)
        if (device !== undefined) return { device, rest }
        const link = this.#links.get(key)
        if (link !== undefined) target = link + rest
      }
      if (target === null) return null
      path = target
    }
    return null
  }
}

function isName(name: string): boolean {
  return name.startsWith('\\') && name.length > 1 && !name.endsWith('\\')
}

function fold(name: string): string {
  const lower = name.toLowerCase()
  return lower.startsWith('\\dosdevices\\') ? `\\??\\${lower.slice(12)}` : lower
}
