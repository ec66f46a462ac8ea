import type { ChalkInstance } from 'chalk'
import Table from 'cli-table3'
import type { BenchReport, DiskReport, DiskTiming, PriceReport } from '../bench/report.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import { deviceLines, windowsText } from './device-text.ts'
import { bytesText, groupedText, rateText } from './quantity.ts'

/** More follow from the first ones; the JSON has sixteen of each disk. */
const PROBLEMS_SHOWN = 4
const LABEL = 11

/** A report for people. */
export function reportText(report: BenchReport, again: string, colours: ChalkInstance): string {
  const parts = [guestText(report, colours)]
  for (const [index, disk] of report.disks.entries()) {
    parts.push(diskText(disk, report.timing.disks[index], colours))
  }
  parts.push(violationsText(report, colours))
  if (report.problems.length > 0 || report.unclaimedAccesses > 0) parts.push(problemsText(report, colours))
  parts.push(verdictText(report, again, colours))
  return parts.join('\n')
}

function guestText({ guest, virtio, devices }: BenchReport, colours: ChalkInstance): string {
  const facts = `processor ${guest.profile}, ${bytesText(guest.memoryBytes)}, virtio-blk ${virtio}`
  const lines = [`${colours.bold(windowsText(guest.windows))}  ${colours.dim(facts)}`]
  for (const device of devices) lines.push(...deviceLines(device, 1, false, colours))
  return `${lines.join('\n')}\n`
}

function diskText(disk: DiskReport, timing: DiskTiming | undefined, colours: ChalkInstance): string {
  const heading = [
    colours.bold(disk.name),
    colours.cyan(disk.spec),
    disk.path === null ? colours.red('no drive in the guest') : colours.dim(disk.path),
  ]
  const row = (name: string, value: string) => `  ${colours.dim(name.padEnd(LABEL))} ${value}`
  const lines = [heading.join('  '), row('capacity', capacityText(disk))]
  if (disk.paddedBytes > 0) {
    const padding = `the image ends ${disk.paddedBytes} bytes short of a block; the guest reads zeroes there`
    lines.push(row('', colours.yellow(padding)))
  }
  // What a guest has no drive for it has neither read nor asked anything.
  if (disk.path === null) return `${lines.join('\n')}\n`
  for (const [index, line] of partitionLines(disk, colours).entries()) {
    lines.push(row(index === 0 ? 'partitions' : '', line))
  }
  lines.push(row('sha256', disk.sha256 ?? colours.yellow(withoutDigest(disk))))
  // Nothing was asked: it could not be opened, or not a byte of it was wanted.
  if (disk.exits.length === 0) return `${lines.join('\n')}\n`
  lines.push(row('compared', comparedText(disk)))
  lines.push(row('requests', requestsText(disk)))
  lines.push(row('exits', listText(disk.exits.map(({ name, count }) => [name, count]))))
  lines.push(row('', priceText(disk.price)))
  lines.push(row('interrupts', interruptsText(disk)))
  lines.push(row('copied', `${bytesText(disk.bytesCopied)} of payload between application and backend`))
  if (timing !== undefined) lines.push(row('speed', speedText(timing)))
  return `${lines.join('\n')}\n`
}

function capacityText({ sectors, blockBytes, serial }: DiskReport): string {
  const blocks = blockBytes === SECTOR_BYTES ? '' : `, blocks of ${groupedText(blockBytes)} bytes`
  const named = serial === '' ? '' : `, serial ${serial}`
  const count = `${groupedText(sectors)} sector${sectors === 1 ? '' : 's'}`
  return `${bytesText(sectors * SECTOR_BYTES)}, ${count}${blocks}${named}`
}

function partitionLines(
  { partitionStyle, diskId, partitions }: DiskReport,
  colours: ChalkInstance,
): string[] {
  if (partitionStyle === 'none') return ['none']
  const head = `${partitionStyle.toUpperCase()} ${diskId ?? ''}${partitions.length === 0 ? ', empty' : ''}`
  const rows = partitions.map(({ number, start, sectors, lengthBytes, type, typeName, name, active }) => {
    const quoted = name === '' ? '' : `  ${JSON.stringify(name)}`
    const kind = `${typeName ?? type}${active ? ', active' : ''}${quoted}`
    return [`${number}`, groupedText(start), groupedText(sectors), bytesText(lengthBytes), kind]
  })
  const columns = ['', 'start', 'sectors', 'length', 'type']
  const widths = columns.map((title, at) =>
    Math.max(title.length, ...rows.map((row) => (row[at] ?? '').length)),
  )
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, at) => (at === cells.length - 1 ? cell : cell.padStart(widths[at] ?? 0)))
      .join('  ')
      .trimEnd()
  return rows.length === 0 ? [head] : [head, colours.dim(line(columns)), ...rows.map(line)]
}

function withoutDigest(disk: DiskReport): string {
  if (disk.verify === 'sample')
    return `none: ${bytesText(disk.readBytes)} sampled, --verify full reads it all`
  if (disk.verify === 'none') return 'none: not read'
  return `none: only ${bytesText(disk.readBytes)} could be read`
}

function listText(counts: readonly (readonly [string, number])[]): string {
  if (counts.length === 0) return 'none'
  return counts.map(([name, count]) => `${name} ${groupedText(count)}`).join(', ')
}

function requestsText({ daemon, requests, price }: DiskReport): string {
  if (daemon === null) return listText(Object.entries(requests))
  const again = daemon.connections > 1 ? `, which came back ${daemon.connections - 1} times` : ''
  return `${groupedText(price.requests)} served by the daemon${again}`
}

function comparedText({ readBytes, workload, daemon }: DiskReport): string {
  const random = `${bytesText(workload.comparedBytes)} in ${groupedText(workload.requests)} random requests`
  const whole = daemon
    ? 'nothing with a backend: the daemon has it'
    : `${bytesText(readBytes)} with the backend`
  return `${whole}, ${random} with the model`
}

/** What a request costs in exits, as a sum. */
function priceText({ total, doorbell, interruptStatus, endOfInterrupt, halt, other }: PriceReport): string {
  const parts = [
    [doorbell, 'doorbell'],
    [interruptStatus, 'interrupt status'],
    [endOfInterrupt, 'EOI'],
    [halt, 'HLT'],
    [other, 'other'],
  ] as const
  const sum = parts.map(([count, name]) => `${count.toFixed(2)} ${name}`).join(' + ')
  return `${total.toFixed(2)} a request = ${sum}`
}

function interruptsText({ interrupts, injections, deliveries }: DiskReport): string {
  const all = `${groupedText(injections)} injected, ${groupedText(deliveries)} delivered without an exit`
  return `${groupedText(interrupts)} of this disk; of every source ${all}`
}

function speedText(timing: DiskTiming): string {
  const read = rateText(timing.readMegabytesPerSecond, 'MB/s')
  return `${read} whole disk, ${rateText(timing.iops, 'IOPS')} workload, comparison included`
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
