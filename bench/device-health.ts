import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'

/** A device and all below it work; what its drivers hide does not count. */
export function works(device: DeviceView): boolean {
  return (device.hidden || device.status === 'working') && device.children.every(works)
}

/** What keeps the device at a path, or the first below it, from working: `code 10: cannot start`. */
export function problemOf(root: DeviceView | null, instancePath: string): string | null {
  const device = root === null ? null : find(root, instancePath)
  return device === null ? null : firstProblem(device)
}

function find(device: DeviceView, instancePath: string): DeviceView | null {
  if (device.instancePath === instancePath) return device
  for (const child of device.children) {
    const found = find(child, instancePath)
    if (found !== null) return found
  }
  return null
}

function firstProblem(device: DeviceView): string | null {
  const { status, problem, name } = device
  if (status !== 'working') {
    return problem === null ? `${name}: ${status}` : `${name}: code ${problem.code}, ${problem.text}`
  }
  for (const child of device.children) {
    const found = firstProblem(child)
    if (found !== null) return found
  }
  return null
}
