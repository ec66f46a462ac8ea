import type { ChalkInstance } from 'chalk'
import type { WindowsName } from '../bench/description.ts'
import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'
import type { Resource } from '../guest/kernel/pnp/resource-list.ts'

const WINDOWS: { readonly [name in WindowsName]: string } = {
  xp: 'Windows XP',
  vista: 'Windows Vista',
  7: 'Windows 7',
}

/** The guest's operating system as people call it. */
export function windowsText(name: WindowsName): string {
  return WINDOWS[name]
}

/** A device and those below it, each indented under what it hangs on, with what keeps it from working. */
export function deviceLines(
  device: DeviceView,
  depth: number,
  verbose: boolean,
  colours: ChalkInstance,
): string[] {
  if (device.hidden && !verbose) return []
  const indent = '  '.repeat(depth)
  const status = device.status === 'working' ? '' : colours.red(`  ${problemOf(device)}`)
  const driver = device.driver === null ? '' : colours.dim(`  ${device.driver}`)
  const lines = [`${indent}${colours.bold(device.name)}${driver}${status}`]
  if (verbose) {
    const facts = [
      ['instance', device.instancePath],
      ['hardware', device.hardwareIds.join(', ')],
      ['stack', device.stack.join(' < ')],
      ['resources', device.resources.map(resourceText).join(', ')],
    ]
    for (const [name, value] of facts) {
      if (value !== '') lines.push(colours.dim(`${indent}    ${name?.padEnd(10)}${value}`))
    }
  }
  for (const child of device.children) lines.push(...deviceLines(child, depth + 1, verbose, colours))
  return lines
}

function problemOf({ status, problem }: DeviceView): string {
  return problem === null ? status : `code ${problem.code}: ${problem.text}`
}

function resourceText(resource: Resource): string {
  if (resource.kind === 'interrupt') return `interrupt line ${resource.vector}`
  const end = resource.start + resource.lengthBytes - 1
  return `${resource.kind} 0x${resource.start.toString(16)}-0x${end.toString(16)}`
}
