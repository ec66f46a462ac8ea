import { errnoOf, meaningOf } from '../host/disk/errno.ts'

/** What the process ends with, for scripts. */
export const Exit = {
  VERIFIED: 0,
  /** A violation, wrong data, or a request that failed. */
  NOT_VERIFIED: 1,
  /** Nothing was run and nothing written. */
  BAD_INPUT: 2,
  /** A mistake of Paravane's own: EX_SOFTWARE. */
  OUR_MISTAKE: 70,
} as const

/** Input that cannot be used: one line for standard error, exit code 2. */
export class BadInput extends Error {
  override readonly name = 'BadInput'
}

/** Makes any text one line. */
export function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}

/** The command that repeats the run under way; empty before there is one. */
let again = ''

/** From here on a mistake of ours is reported with the command that shows it again. */
export function reproducibleBy(command: string): void {
  again = command
}

/** Ends the process over an exception that nobody expects. */
export function mistake(error: unknown): never {
  cleanUpAll()
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  const how = again === '' ? '' : `paravane: to see it again: ${again}\n`
  process.stderr.write(`paravane: a mistake of Paravane's own: ${text}\n${how}`)
  process.exit(Exit.OUR_MISTAKE)
}

const cleanUps: (() => void)[] = []

/** Registers what has to be done however the process ends; returns what takes it back. */
export function onExit(cleanUp: () => void): () => void {
  cleanUps.push(cleanUp)
  return () => {
    const at = cleanUps.indexOf(cleanUp)
    if (at >= 0) cleanUps.splice(at, 1)
  }
}

export function cleanUpAll(): void {
  for (const cleanUp of cleanUps.splice(0)) cleanUp()
}

/** 128 and SIGPIPE, as a shell says of a program that a closed pipe ended. */
const UNREAD = 141

/** What is found, as an exit code; null: the process goes on though nobody reads. */
let found: number | null = UNREAD

/** From here on a standard output that cannot be written does not end the process. */
export function goOnUnread(): void {
  found = null
}

/** Prints a result. Whoever has enough of it and closes the pipe gets the same exit code. */
export async function conclude(text: string, code: number): Promise<number> {
  found = code
  await print(text)
  return code
}

/**
 * Standard output cannot be written. What to end the process with: what was found, if that is known, when nobody
 * reads on; null: nothing.
 */
export function outputLost(error: unknown): number | null {
  if (found === null || errnoOf(error) === 'EPIPE') return found
  process.stderr.write(`paravane: standard output cannot be written: ${meaningOf(error)}\n`)
  return Exit.NOT_VERIFIED
}

/** Writes and waits until the text is out: a pipe takes large ones later than `write` returns. */
export function print(text: string, stream: NodeJS.WriteStream = process.stdout): Promise<void> {
  return new Promise((resolve) => {
    stream.write(text, () => resolve())
  })
}
