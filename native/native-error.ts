import { getSystemErrorName } from 'node:util'
import { libc } from './libc.ts'

/**
 * What the operating system answered in place of doing it. Thrown where only we or the user can be the cause,
 * returned where a peer can.
 */
export class NativeError extends Error {
  /** `mmap`, `connect`, … */
  readonly call: string
  /** `ENOENT`, `EADDRINUSE`, … */
  readonly errno: string

  constructor(call: string, errno: string, about = '') {
    super(`${about === '' ? '' : `${about}: `}${call} says ${errno}`)
    this.name = 'NativeError'
    this.call = call
    this.errno = errno
  }

  /** The error of the call made just now, before any other is made. */
  static last(call: string, about = ''): NativeError {
    return new NativeError(call, lastErrno(), about)
  }
}

/** Name of the error of the call made just now. */
export function lastErrno(): string {
  return getSystemErrorName(-libc().errno())
}

/** Passes a result on. @throws NativeError when it is negative. */
export function checked(result: number, call: string, about = ''): number {
  if (result < 0) throw NativeError.last(call, about)
  return result
}
