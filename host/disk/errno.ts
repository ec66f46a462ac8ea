import type { DiskOutcome } from './backend.ts'

const OUTCOMES: ReadonlyMap<string, DiskOutcome> = new Map([
  ['ENOSPC', 'no-space'],
  ['EDQUOT', 'no-space'],
  ['EFBIG', 'no-space'],
  ['EROFS', 'read-only'],
  ['EACCES', 'read-only'],
  ['EPERM', 'read-only'],
  ['EBADF', 'gone'],
  ['ENODEV', 'gone'],
  ['ENXIO', 'gone'],
  ['ESTALE', 'gone'],
  ['ENOSYS', 'unsupported'],
  ['EOPNOTSUPP', 'unsupported'],
  ['ENOTSUP', 'unsupported'],
])

const MEANINGS: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'no such file'],
  ['EISDIR', 'it is a directory'],
  ['ENOTDIR', 'a part of its path is not a directory'],
  ['EACCES', 'permission denied'],
  ['EPERM', 'permission denied'],
  ['ELOOP', 'too many symbolic links'],
  ['ENAMETOOLONG', 'its name is too long'],
  ['EMFILE', 'too many open files'],
  ['ENOSPC', 'no space left'],
  ['EBUSY', 'in use'],
  ['ETXTBSY', 'it is a program that runs'],
])

/** The operating system's name of an error that `fs` threw, or another name that is never empty. */
export function errnoOf(error: unknown): string {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : ''
  return typeof code === 'string' && code !== '' ? code : 'unknown'
}

/** What an error of the operating system means at the waist. What is not known is the medium's fault. */
export function outcomeOf(errno: string): DiskOutcome {
  return OUTCOMES.get(errno) ?? 'medium-error'
}

/** Why a file could not be opened, in words. */
export function meaningOf(error: unknown): string {
  const errno = errnoOf(error)
  return MEANINGS.get(errno) ?? (errno.startsWith('ERR_') ? 'not a usable path' : errno)
}
