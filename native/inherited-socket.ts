import { fstatSync } from 'node:fs'
import { Descriptor } from './descriptor.ts'
import { F_SETFL, libc, O_NONBLOCK } from './libc.ts'
import { UnixListener } from './unix-listener.ts'
import { UnixSocket } from './unix-socket.ts'

/**
 * A socket that whoever started this process left open for it under a number: one that listens, or one whose other
 * end is connected already. Null when nothing or something else is there.
 */
export function inheritedSocket(number: number): UnixListener | UnixSocket | null {
  try {
    if (!fstatSync(number).isSocket()) return null
  } catch {
    return null
  }
  const given = new Descriptor(number)
  // Children of ours do not get it.
  const descriptor = given.duplicate()
  given.close()
  libc().fcntl(descriptor.number, F_SETFL, O_NONBLOCK)
  return UnixListener.of(descriptor, `descriptor ${number}`) ?? new UnixSocket(descriptor)
}
