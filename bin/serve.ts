import path from 'node:path'
import { BadDescription } from '../bench/description.ts'
import { fileIdentity, imageFileOf } from '../bench/image-file.ts'
import { createServer, type DiskServer, type ServeDescription } from '../bench/serve.ts'
import { TraceLines } from '../bench/trace-lines.ts'
import { parseWhole } from '../host/disk/option.ts'
import type { SessionEnd } from '../host/vhost-user/session.ts'
import { REQUIREMENTS } from '../protocol/requirement.ts'
import { explain } from '../protocol/violation.ts'
import { BadInput, Exit, goOnUnread, onExit, print } from './exit.ts'
import { bytesText } from './quantity.ts'
import { supervise, type Watched, watched } from './supervisor.ts'
import { TraceFile } from './trace-file.ts'

/** Options of `paravane serve` as commander gives them: texts, unchecked. */
export interface ServeArguments {
  readonly socket?: string
  /** Another name of the same. */
  readonly socketPath?: string
  readonly fd?: string
  readonly printCapabilities?: boolean
  readonly queues?: string
  readonly polling?: boolean
  readonly requireSeals?: boolean
  readonly trace?: string
}

/** What vhost-user calls a back-end program, and which options of such programs it has besides those that all have. */
const CAPABILITIES = { type: 'block', features: [] }
/** Standard input, output and error are not for sockets; more descriptors than this nobody passes on. */
const FD_MIN = 3
const FD_MAX = 1023

/**
 * Serves a disk until it is told to stop. Returns the exit code.
 *
 * A child does it, and outlives no front-end that makes its memory shorter; with seals required none can.
 */
export async function serve(spec: string | undefined, given: ServeArguments): Promise<number> {
  if (given.printCapabilities === true) {
    await print(`${JSON.stringify(CAPABILITIES)}\n`)
    return Exit.VERIFIED
  }
  if (spec === undefined) throw new BadInput('serve takes a disk spec')
  const socket = socketOf(given)
  const child = watched()
  // The front-end's disk outlives whoever looked at what is said.
  goOnUnread()
  if (child !== null || given.requireSeals === true) return serveHere(spec, given, socket, child)
  return supervise(say, typeof socket === 'number' ? socket : null)
}

function socketOf({ socket, socketPath, fd }: ServeArguments): string | number {
  const path = socket ?? socketPath
  if ((path === undefined) === (fd === undefined))
    throw new BadInput('serve takes --socket PATH or --fd NUMBER')
  if (path !== undefined) return path
  const number = parseWhole(fd ?? '')
  if (number !== null && number >= FD_MIN && number <= FD_MAX) return number
  throw new BadInput(`--fd is ${JSON.stringify(fd)}; it takes a descriptor from ${FD_MIN} to ${FD_MAX}`)
}

async function serveHere(
  spec: string,
  given: ServeArguments,
  socket: string | number,
  child: Watched | null,
): Promise<number> {
  const again = child?.again === true
  const description = descriptionOf(spec, given, socket)
  const trace =
    given.trace === undefined ? null : new TraceFile(checkTrace(given.trace, spec), { eager: true })
  const server = await createServer(description, {
    ...(trace === null ? {} : { trace: new TraceLines(trace.write) }),
    again,
    listener: {
      connected: () => say('front-end connected'),
      recovered: (queue, requests) => say(recoveredText(queue, requests)),
      disconnected: (end) => say(`front-end gone: ${endText(end)}`),
      violated: (violation) => say(explain(violation)),
    },
  }).catch((error: unknown) => {
    throw error instanceof BadDescription ? new BadInput(error.message) : error
  })
  try {
    trace?.open(again ? 'a' : 'w')
  } catch (error) {
    await server.close()
    throw error
  }
  const untrace = onExit(() => trace?.close())
  const restore = stopOnSignal(server)
  await print(again ? 'listening again\n' : banner(description, server))
  const flushed = await server.run()
  restore()
  untrace()
  trace?.close()
  if (trace !== null && trace.error !== null) say(trace.error)
  if (flushed !== 'ok') say(`the last flush failed (${flushed}): the image may lack what was written`)
  const broken = server.violations.entries().some(({ rule }) => REQUIREMENTS[rule].level === 'must')
  return broken || flushed !== 'ok' || trace?.error ? Exit.NOT_VERIFIED : Exit.VERIFIED
}

function recoveredText(queue: number, requests: number): string {
  return `queue ${queue}: ${requests} ${requests === 1 ? 'request' : 'requests'} in flight done again`
}

/** One line at a time, at once: somebody watches, or a program reads. */
function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function endText(end: SessionEnd): string {
  switch (end.kind) {
    case 'hung-up':
      return 'it closed the connection'
    case 'violation':
      return 'it broke a rule and could not be told otherwise'
    case 'deaf':
      return 'it does not read what it is sent'
    case 'closed':
      return 'closed from here'
    default:
      return end satisfies never
  }
}

/** The first signal ends the session and flushes the image; another one does not wait for that. */
function stopOnSignal(server: DiskServer): () => void {
  const signals = ['SIGINT', 'SIGTERM'] as const
  const before = signals.map((signal) => process.listeners(signal))
  const stop = (): void => {
    restore()
    server.stop()
  }
  function restore(): void {
    for (const [index, signal] of signals.entries()) {
      process.removeListener(signal, stop)
      for (const listener of before[index] ?? []) {
        if (!process.listeners(signal).includes(listener)) process.on(signal, listener)
      }
    }
  }
  for (const signal of signals) {
    process.removeAllListeners(signal)
    process.on(signal, stop)
  }
  return restore
}

function descriptionOf(spec: string, given: ServeArguments, socket: string | number): ServeDescription {
  const queues = given.queues === undefined ? {} : { queues: whole('queues', given.queues) }
  return {
    spec,
    socket,
    ...queues,
    polling: given.polling === true,
    requireSeals: given.requireSeals === true,
  }
}

function whole(option: string, text: string): number {
  const value = parseWhole(text)
  if (value !== null) return value
  throw new BadInput(`--${option} is ${JSON.stringify(text)}; it takes a whole number from 1 to 64`)
}

/** A trace over the image would destroy what is served. */
function checkTrace(file: string, spec: string): string {
  const identity = fileIdentity(file)
  if (identity !== null && imageFileOf(spec)?.identity === identity) {
    throw new BadInput(`--trace: ${JSON.stringify(file)} is the image of the disk`)
  }
  return file
}

function banner(description: ServeDescription, server: DiskServer): string {
  const { facts } = server
  const queues = description.queues ?? 1
  const access = facts.readOnly ? 'read-only' : 'writes go to it; `| overlay` keeps them in memory'
  const { socket } = description
  const where = typeof socket === 'number' ? `descriptor ${socket}` : path.resolve(socket)
  return [
    `disk      ${description.spec}, ${bytesText(facts.lengthBytes)}, ${access}`,
    `socket    ${where}, ${queues} ${queues === 1 ? 'queue' : 'queues'}`,
    `loop      ${server.loop}`,
    ...(typeof socket === 'number' ? [] : qemuLines(where, queues)),
    'stop      Ctrl-C',
    '',
  ].join('\n')
}

function qemuLines(socket: string, queues: number): readonly string[] {
  return [
    'qemu      qemu-system-x86_64 -m 512M -machine q35,memory-backend=mem \\',
    '            -object memory-backend-memfd,id=mem,size=512M,share=on \\',
    `            -chardev socket,id=paravane,path=${shellWord(socket)},reconnect=1 \\`,
    `            -device vhost-user-blk-pci,chardev=paravane,num-queues=${queues},disable-legacy=on`,
  ]
}

/** A comma inside of an option of QEMU is written twice. */
function shellWord(word: string): string {
  const qemu = word.replaceAll(',', ',,')
  return /^[\w@%+=:,./-]+$/.test(qemu) ? qemu : `'${qemu.replaceAll("'", `'\\''`)}'`
}
