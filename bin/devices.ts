import type { ChalkInstance } from 'chalk'
import { BadDescription, type ProfileName, type WindowsName } from '../bench/description.ts'
import { type DeviceTreeReport, deviceTree } from '../bench/device-tree.ts'
import { parseWhole } from '../host/disk/option.ts'
import { coloursFor } from './colour.ts'
import { deviceLines, windowsText } from './device-text.ts'
import { BadInput, conclude, Exit } from './exit.ts'

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
    // What they may be is the description's to say.
    ...(given.windows === undefined ? {} : { windows: given.windows as WindowsName }),
    ...(given.profile === undefined ? {} : { profile: given.profile as ProfileName }),
  }).catch((error: unknown) => {
    throw error instanceof BadDescription ? new BadInput(error.message) : error
  })
  const text =
    given.json === true
      ? `${JSON.stringify(report, null, 2)}\n`
      : treeText(report, given.verbose === true, coloursFor('stdout'))
  return conclude(text, report.working ? Exit.VERIFIED : Exit.NOT_VERIFIED)
}

function treeText(report: DeviceTreeReport, verbose: boolean, colours: ChalkInstance): string {
  const { windows, profile } = report.guest
  const lines = [`${colours.bold(windowsText(windows))}  ${colours.dim(`processor ${profile}`)}`]
  for (const device of report.devices) lines.push(...deviceLines(device, 1, verbose, colours))
  return `${lines.join('\n')}\n`
}
