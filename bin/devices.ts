import type { ChalkInstance } from 'chalk'
import { BadDescription } from '../bench/description.ts'
import { type DeviceTreeReport, deviceTree } from '../bench/device-tree.ts'
import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'
import type { Resource } from '../guest/kernel/pnp/resource-list.ts'
import { parseWhole } from '../host/disk/option.ts'
import { coloursFor } from './colour.ts'
import { BadInput, Exit, print } from './exit.ts'

/** Options of `paravane devices` as commander gives them: texts, unchecked. */
export interface DevicesArguments {
  readonly disk?: readonly string[]
  readonly windows?: string
  readonly profile?: string
  readonly seed?: string
  readonly verbose?: boolean
  readonly json?: boolean
}

/** Boots the guest and prints its device tree. Returns the exit code: 1 when a device does not work. */
export async function devices(given: DevicesArguments): Promise<number> {
  const seed = given.seed === undefined ? 0 : parseWhole(given.seed)
  if (seed === null) {
    throw new BadInput(`--seed is ${JSON.stringify(given.seed)}; it takes a whole number from 0 to 2^53 - 1`)
  }
  const report = await deviceTree({
    seed,
    disks: given.disk ?? ['memory'],
    windows: given.windows ?? '7',
    profile: given.profile ?? 'apicv',
  }).catch((error: unknown) => {
    throw error instanceof BadDescription ? new BadInput(error.message) : error
  })
  const text =
    given.json === true
      ? `${JSON.stringify(report, null, 2)}\n`
      : treeText(report, given.verbose === true, coloursFor('stdout'))
  await print(text)
  return report.working ? Exit.VERIFIED : Exit.NOT_VERIFIED
}

function treeText(report: DeviceTreeReport, verbose: boolean, colours: ChalkInstance): string {
  const { windows, profile } = report.guest
  const lines = [colours.dim(`Windows ${windows}, processor profile ${profile}`)]
  for (const device of report.devices) lines.push(...deviceLines(device, 0, verbose, colours))
  return `${lines.join('\n')}\n`
}

function deviceLines(device: DeviceView, depth: number, verbose: boolean, colours: ChalkInstance): string[] {
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
