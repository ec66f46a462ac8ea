#!/usr/bin/env node
import './engine.ts'
import { Command, CommanderError, Option } from 'commander'
import { VERSION } from '../bench/version.ts'
import { BadInput, cleanUpAll, Exit, mistake, oneLine, outputLost } from './exit.ts'

const EXAMPLES = `
Examples:
  paravane run                                        a disk in memory: needs nothing
  paravane run --disk file:disk.img                   an image; it is never changed
  paravane run --disk 'file:disk.img | delay:ms=2'    the same, slower
  paravane run --disk module:./mine.ts,sectors=4096   a backend of your own
  paravane run --windows xp --profile 2010            another guest, an older processor
  paravane run --seed 7 --json --trace run.jsonl      the same run every time, for programs
  paravane replay run.jsonl                           that run once more, compared event by event
  paravane devices --windows xp --verbose             the guest's device tree
  paravane serve file:disk.img --socket /tmp/pv.sock  the disk for QEMU, over vhost-user
  paravane backends                                   every kind of disk, with a spec to paste

Exit codes: 0 verified, 1 violation or wrong data, 2 bad input, 70 a mistake of Paravane's own.`

const SERVE_HELP = `
Examples:
  paravane serve file:disk.img --socket /tmp/pv.sock
  paravane serve 'file:disk.img | overlay' --socket /tmp/pv.sock --queues 2

It prints a QEMU command line to paste, serves one front-end after the other, and ends with Ctrl-C: the image is
flushed then, and the socket file goes. Writes go to the disk itself; with an overlay they stay in memory.

Exit codes: 0 stopped, 1 a front-end broke a rule or the last flush failed, 2 bad input.`

const REPLAY_HELP = `
Example:
  paravane run --disk file-async:disk.img --trace run.jsonl && paravane replay run.jsonl

Names of images are those of the run: replay in the folder where it ran. Images are read again, never written.

Exit codes: 0 identical, 1 the first difference is shown, 2 the trace is cut, malformed or of another version.`

function makeProgram(ended: (code: number) => void): Command {
  const program = new Command('paravane')
    .description('A test bench for paravirtual I/O: both ends of the wire in one process.')
    .version(VERSION)
    .addHelpText('after', EXAMPLES)
    .configureOutput({
      outputError: (text, write) => write(`paravane: ${oneLine(text.replace(/^error: /, ''))}\n`),
    })
    .exitOverride()
  program
    .command('run')
    .description('boot the Windows guest, drive its disks all the way down, and verify every byte')
    .option('-d, --disk <spec>', 'a disk, any number of times (default: memory)', collect)
    .option('--windows <version>', 'the guest: xp, vista or 7 (default: 7)')
    .option('--profile <name>', 'processor: 2006, 2010 or apicv (default: apicv)')
    .option('-s, --seed <number>', 'makes the same choices again (default: another one each time)')
    .option('--preemption', 'let the seed decide at every kernel routine and exit what goes first')
    .addOption(new Option('--virtio <version>', 'VIRTIO 1.0, 1.1, 1.2 or 1.3 (default: 1.3)'))
    .option('--verify <mode>', 'full, sample or none (default: full up to 16 GiB, else sample)')
    .option('--operations <count>', 'requests of the random workload on each disk (default: 2000)')
    .option('--write', 'let the workload overwrite the disk itself: its content is lost')
    .option('--trace <file>', 'write every event as JSON lines')
    .option('--json', 'print one JSON document and nothing else')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action(async (options) => {
      ended(await (await import('./run.ts')).run(options))
    })
  program
    .command('replay')
    .description('run again what a trace describes, from the trace alone, and compare event by event')
    .argument('<trace>', 'a file that "run --trace" wrote')
    .option('--json', 'print one JSON document and nothing else')
    .addHelpText('after', REPLAY_HELP)
    .allowExcessArguments(false)
    .action(async (trace, options) => {
      ended(await (await import('./replay.ts')).replay(trace, options))
    })
  program
    .command('devices')
    .description('boot the Windows guest and print the device tree that Plug and Play found')
    .option('-d, --disk <spec>', 'a disk, any number of times (default: memory)', collect)
    .option('--windows <version>', 'xp, vista or 7 (default: 7)')
    .option('--profile <name>', 'processor: 2006, 2010 or apicv (default: apicv)')
    .option('-s, --seed <number>', 'of the disks that draw at random (default: 0)')
    .option('--verbose', 'identifiers, driver stacks and resources too')
    .option('--json', 'print one JSON document and nothing else')
    .addHelpText('after', '\nExample:\n  paravane devices --disk file:disk.img --windows xp --verbose')
    .allowExcessArguments(false)
    .action(async (options) => {
      ended(await (await import('./devices.ts')).devices(options))
    })
  program
    .command('serve')
    .description('offer a disk as a vhost-user-blk device: to QEMU, or to any other front-end')
    .argument('[disk]', 'a disk spec')
    .option('--socket <path>', 'the socket file, made here')
    .addOption(new Option('--socket-path <path>', 'the same').hideHelp())
    .option('--fd <number>', 'instead: a socket left open for us, listening or connected')
    .option(
      '--print-capabilities',
      'say what kind of vhost-user back-end this is, as JSON, and serve nothing',
    )
    .option('--queues <count>', 'request queues, 1 to 64 (default: 1)')
    .option('--polling', 'look at the rings all the time: quicker, and a processor is never idle')
    .option('--require-seals', 'refuse memory that its owner could make shorter under us')
    .option('--trace <file>', 'write every event as JSON lines')
    .addHelpText('after', SERVE_HELP)
    .allowExcessArguments(false)
    .action(async (disk, options) => {
      ended(await (await import('./serve.ts')).serve(disk, options))
    })
  program
    .command('backends')
    .description('list every kind of disk, or what one of them takes')
    .argument('[kind]')
    .option('--json', 'print one JSON document and nothing else')
    .allowExcessArguments(false)
    .action(async (kind, options) => {
      ended(await (await import('./backends.ts')).backends(kind, options))
    })
  for (const command of program.commands) command.copyInheritedSettings(program)
  return program
}

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}

/** Ends at once: overlays are memory, images were only read, and a trace is whole lines. */
function end(code: number): never {
  cleanUpAll()
  process.exit(code)
}

async function main(): Promise<number> {
  let code: number = Exit.VERIFIED
  const program = makeProgram((ended) => {
    code = ended
  })
  if (process.argv.length <= 2) {
    program.outputHelp({ error: true })
    return Exit.BAD_INPUT
  }
  await program.parseAsync()
  return code
}

process.stdout.on('error', (error) => {
  const code = outputLost(error)
  if (code !== null) end(code)
})
// Progress and errors that nobody reads: the exit code says what matters.
process.stderr.on('error', () => {})
process.once('SIGINT', () => end(130))
process.once('SIGTERM', () => end(143))
process.on('uncaughtException', mistake)
process.on('unhandledRejection', mistake)

try {
  // A user's module may leave timers behind; the run is over all the same.
  end(await main())
} catch (error) {
  if (error instanceof CommanderError) end(error.exitCode === 0 ? Exit.VERIFIED : Exit.BAD_INPUT)
  if (!(error instanceof BadInput)) mistake(error)
  process.stderr.write(`paravane: ${oneLine(error.message)}\n`)
  end(Exit.BAD_INPUT)
}
