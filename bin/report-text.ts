import type { ChalkInstance } from 'chalk'
import Table from 'cli-table3'
import type { BenchReport, DiskReport, DiskTiming } from '../bench/report.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import { bytesText, groupedText, rateText } from './quantity.ts'

/** More follow from the first ones; the JSON has sixteen of each disk. */
const PROBLEMS_SHOWN = 4

/** A report for people. */
export function reportText(report: BenchReport, again: string, colours: ChalkInstance): string {
  const parts = report.disks.map((disk, index) => diskText(disk, report.timing.disks[index], report, colours))
  parts.push(violationsText(report, colours))
  if (report.problems.length > 0 || report.unclaimedAccesses > 0) parts.push(problemsText(report, colours))
  parts.push(verdictText(report, again, colours))
  return parts.join('\n')
}

function diskText(
  disk: DiskReport,
  timing: DiskTiming | undefined,
  report: BenchReport,
  colours: ChalkInstance,
): string {
  const bytes = disk.sectors * SECTOR_BYTES
  const rows: (readonly [string, string])[] = [
    ['capacity', `${bytesText(bytes)}, ${groupedText(disk.sectors)} sectors`],
    ['sha256', disk.sha256 ?? colours.yellow(withoutDigest(disk))],
    ['requests', requestsText(disk)],
    ['doorbells', groupedText(disk.doorbells)],
    [
      'interrupts',
      `${groupedText(disk.interrupts)}, with ${groupedText(disk.interruptStatus)} status accesses`,
    ],
    ['compared', comparedText(disk)],
  ]
  if (disk.paddedBytes > 0) {
    const padding = `the image ends ${disk.paddedBytes} bytes short of a block; the driver reads zeroes there`
    rows.splice(1, 0, ['', colours.yellow(padding)])
  }
  if (timing !== undefined) {
    const read = rateText(timing.readMegabytesPerSecond, 'MB/s')
    rows.push(['speed', `${read} whole disk, ${rateText(timing.iops, 'IOPS')} workload, comparison included`])
  }
  const heading = `${colours.bold(disk.name)}  ${colours.cyan(disk.spec)}  ${colours.dim(`virtio-blk ${report.virtio}`)}`
  return [heading, ...rows.map(([name, value]) => `  ${colours.dim(name.padEnd(11))} ${value}`), ''].join(
    '\n',
  )
}

function withoutDigest(disk: DiskReport): string {
  if (disk.verify === 'sample')
    return `none: ${bytesText(disk.readBytes)} sampled, --verify full reads it all`
  if (disk.verify === 'none') return 'none: not read'
  return `none: only ${bytesText(disk.readBytes)} could be read`
}

function requestsText(disk: DiskReport): string {
  const requests = Object.entries(disk.requests)
  return requests.length === 0
    ? 'none'
    : requests.map(([type, count]) => `${type} ${groupedText(count)}`).join(', ')
}

function comparedText({ readBytes, workload }: DiskReport): string {
  const random = `${bytesText(workload.comparedBytes)} in ${groupedText(workload.requests)} random requests`
  return `${bytesText(readBytes)} with the backend, ${random} with the model`
}

function violationsText(report: BenchReport, colours: ChalkInstance): string {
  if (report.violations.length === 0) return `violations   ${colours.green('none')}, by driver or device\n`
  const table = new Table({
    head: ['disk', 'side', 'rule', 'count', 'because'],
    style: { head: [], border: [], compact: true },
    wordWrap: true,
    colWidths: [null, null, null, null, 48],
  })
  for (const { disk, side, rule, count, because } of report.violations) {
    table.push([disk, colours.red(side), rule, groupedText(count), because])
  }
  return `${table.toString()}\n`
}

function problemsText(report: BenchReport, colours: ChalkInstance): string {
  const lines = report.problems
    .slice(0, PROBLEMS_SHOWN)
    .map(({ disk, text }) => `${disk}: ${colours.red(text)}`)
  if (report.unclaimedAccesses > 0) {
    lines.push(colours.red(`${groupedText(report.unclaimedAccesses)} register accesses met no device`))
  }
  const total = report.disks.reduce((sum, disk) => sum + disk.problems, 0)
  if (total > PROBLEMS_SHOWN) lines.push(`and ${groupedText(total - PROBLEMS_SHOWN)} more`)
  return `${lines.join('\n')}\n`
}

function verdictText(report: BenchReport, again: string, colours: ChalkInstance): string {
  const verdict = report.verified ? colours.green.bold('verified') : colours.red.bold('NOT VERIFIED')
  return `${verdict}  seed ${report.seed}, ${report.timing.seconds.toFixed(2)} s\n${colours.dim(`again: ${again}`)}\n`
}
