import fs from 'node:fs'
import { StringDecoder } from 'node:string_decoder'
import { VHOST_USER } from '../host/disk/daemon.ts'
import { readDiskSpec } from '../host/disk/registry.ts'
import { type ArrivalRecord, Replay } from '../hypervisor/replay.ts'
import type { Plain } from '../protocol/platform.ts'
import { BadDescription, type CheckedDescription, checkDescription } from './description.ts'
import { VERSION } from './version.ts'

const CHUNK_BYTES = 65_536
/** No event comes near it; a file without line ends is not read into memory whole. */
const LINE_MAX = 1 << 20

/** A trace that cannot be replayed: one line that says why. */
export class BadTrace extends Error {
  override readonly name = 'BadTrace'
}

/** A trace after its one check: whole, of this version, every line an event. */
export interface RecordedTrace {
  readonly path: string
  readonly description: CheckedDescription
  /** What came from outside, where and when. */
  readonly arrivals: readonly ArrivalRecord[]
  readonly lines: number
}

/** The lines of a trace, one after the other: a trace may be larger than memory. */
export class LineReader {
  readonly #fd: number
  readonly #chunk: Buffer
  readonly #decoder: StringDecoder
  #text: string
  #at: number
  #lines: number

  /** @throws BadTrace */
  constructor(path: string) {
    try {
      if (!fs.statSync(path).isFile()) throw new BadTrace('it is not a file')
      this.#fd = fs.openSync(path, 'r')
    } catch (error) {
      if (error instanceof BadTrace) throw error
      const { code } = error as NodeJS.ErrnoException
      throw new BadTrace(code === 'ENOENT' ? 'there is no such file' : `it cannot be read: ${String(code)}`)
    }
    this.#chunk = Buffer.alloc(CHUNK_BYTES)
    this.#decoder = new StringDecoder('utf8')
    this.#text = ''
    this.#at = 0
    this.#lines = 0
  }

  /** Lines read so far. */
  get lines(): number {
    return this.#lines
  }

  /** The next line without its end; null after the last. @throws BadTrace when the last has no end. */
  next(): string | null {
    for (let from = this.#at; ; ) {
      const end = this.#text.indexOf('\n', from)
      if (end >= 0) {
        const line = this.#text.slice(this.#at, end)
        this.#at = end + 1
        this.#lines++
        return line
      }
      this.#text = this.#text.slice(this.#at)
      this.#at = 0
      from = this.#text.length
      if (from > LINE_MAX) throw new BadTrace(`line ${this.#lines + 1} is longer than any event`)
      const bytes = fs.readSync(this.#fd, this.#chunk)
      if (bytes === 0) {
        if (from === 0) return null
        throw new BadTrace(`it is cut within line ${this.#lines + 1}`)
      }
      this.#text += this.#decoder.write(this.#chunk.subarray(0, bytes))
    }
  }

  close(): void {
    fs.closeSync(this.#fd)
  }
}

/**
 * Reads a trace through and checks it, without running anything.
 *
 * @throws BadTrace
 */
export function readTrace(path: string): RecordedTrace {
  const reader = new LineReader(path)
  try {
    const description = headerOf(reader.next())
    const arrivals: ArrivalRecord[] = []
    let ended = false
    for (let line = reader.next(); line !== null; line = reader.next()) {
      const number = reader.lines
      if (ended) throw new BadTrace(`line ${number} comes after the end`)
      const event = objectOf(line)
      if (event === null || typeof event['name'] !== 'string' || !isTime(event['us'])) {
        throw new BadTrace(`line ${number} is no event`)
      }
      if (event['name'] === 'arrival') arrivals.push(arrivalOf(event, number))
      if (event['name'] !== 'end') continue
      if (event['lines'] !== number - 1) {
        throw new BadTrace(
          `it had ${JSON.stringify(event['lines'])} lines before its end, and has ${number - 1}`,
        )
      }
      ended = true
    }
    if (!ended) throw new BadTrace('it is cut: its last line does not say that the run came to its end')
    refuseDisorder(arrivals)
    return { path, description, arrivals, lines: reader.lines }
  } finally {
    reader.close()
  }
}

type Parsed = { readonly [name: string]: unknown }

function headerOf(line: string | null): CheckedDescription {
  if (line === null) throw new BadTrace('it is empty')
  const header = objectOf(line)
  if (header === null || !('paravane' in header)) throw new BadTrace('its first line is not that of a trace')
  const { schema, paravane, seed, description } = header
  if (paravane !== VERSION) {
    throw new BadTrace(
      `it is of paravane ${JSON.stringify(paravane)}, and this is ${JSON.stringify(VERSION)}`,
    )
  }
  if (schema !== 1) throw new BadTrace(`its schema is ${JSON.stringify(schema)}, not 1`)
  const checked = descriptionOf(description)
  if (seed !== checked.seed) {
    throw new BadTrace(`its first line says seed ${JSON.stringify(seed)} and describes ${checked.seed}`)
  }
  refuseWritten(checked)
  return checked
}

function descriptionOf(written: unknown): CheckedDescription {
  try {
    return checkDescription(written as CheckedDescription)
  } catch (error) {
    if (error instanceof BadDescription) throw new BadTrace(`its first line: ${error.message}`)
    throw error
  }
}

/** Such a run changed what it read, and would change it once more; or it happened elsewhere, too. */
function refuseWritten({ disks }: CheckedDescription): void {
  for (const [index, { spec, write }] of disks.entries()) {
    const read = readDiskSpec(spec)
    if (read.ok && read.value.layers[0]?.kind === VHOST_USER.kind) {
      throw new BadTrace(`a daemon had disk${index}, and what it did is not in the trace`)
    }
    if (!write || !read.ok) continue
    const lost = read.value.layers.some(({ kind }) => ['memory', 'sparse', 'overlay'].includes(kind))
    if (!lost) throw new BadTrace(`its run wrote to disk${index} itself, which is not as it was any more`)
  }
}

function arrivalOf({ number, turn, source, value }: Parsed, line: number): ArrivalRecord {
  if (!isCount(number) || !isCount(turn) || typeof source !== 'string' || value === undefined) {
    throw new BadTrace(`line ${line} is no arrival`)
  }
  return { number, turn, source, value: value as Plain }
}

function refuseDisorder(arrivals: readonly ArrivalRecord[]): void {
  try {
    new Replay(arrivals)
  } catch (error) {
    throw new BadTrace(error instanceof Error ? error.message : String(error))
  }
}

function objectOf(line: string): Parsed | null {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Parsed) : null
  } catch {
    return null
  }
}

function isTime(value: unknown): boolean {
  return typeof value === 'number' && value >= 0
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}
