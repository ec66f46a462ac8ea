import fs from 'node:fs'
import { errnoOf, meaningOf } from '../host/disk/errno.ts'
import { BadInput } from './exit.ts'

const CHUNK = 65_536

/**
 * A trace on disk. What is said before `open` is kept, so that a run that never begins leaves no file; a file
 * that cannot be written any more ends the trace, not the run.
 */
export class TraceFile {
  readonly #path: string
  readonly #atOnceBytes: number
  #fd: number | null
  #text: string
  #error: string | null

  /** @param eager writes each line at once: for a process that others can end at any moment. */
  constructor(path: string, { eager = false }: { readonly eager?: boolean } = {}) {
    this.#path = path
    this.#atOnceBytes = eager ? 1 : CHUNK
    this.#fd = null
    this.#text = ''
    this.#error = null
  }

  /** Why the file is not whole; null while it is. */
  get error(): string | null {
    return this.#error
  }

  /** @throws BadInput */
  open(how: 'w' | 'a' = 'w'): void {
    try {
      this.#fd = openNow(this.#path, how)
    } catch (error) {
      const errno = errnoOf(error)
      const why =
        errno === 'ENOENT'
          ? 'its folder does not exist'
          : errno === 'ENXIO'
            ? 'nobody reads it'
            : meaningOf(error)
      throw new BadInput(`--trace: cannot write ${JSON.stringify(this.#path)}: ${why}`)
    }
    if (this.#text.length >= this.#atOnceBytes) this.#flush(this.#fd)
  }

  readonly write = (line: string): void => {
    if (this.#error !== null) return
    this.#text += `${line}\n`
    if (this.#fd !== null && this.#text.length >= this.#atOnceBytes) this.#flush(this.#fd)
  }

  close(): void {
    if (this.#fd === null) return
    this.#flush(this.#fd)
    fs.closeSync(this.#fd)
    this.#fd = null
  }

  #flush(fd: number): void {
    const bytes = Buffer.from(this.#text)
    this.#text = ''
    try {
      for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done)
    } catch (error) {
      this.#error ??= `--trace: ${JSON.stringify(this.#path)} is not whole: ${meaningOf(error)}`
    }
  }
}

/** A pipe with a name keeps whoever opens it until somebody reads, and signals wait as long: it is asked first. */
function openNow(path: string, how: 'w' | 'a'): number {
  if (fs.statSync(path, { throwIfNoEntry: false })?.isFIFO() !== true) return fs.openSync(path, how)
  const asked = fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK)
  try {
    return fs.openSync(path, how)
  } finally {
    fs.closeSync(asked)
  }
}
