import { Descriptor } from './descriptor.ts'
import {
  AF_UNIX,
  CLOEXEC,
  libc,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  O_NONBLOCK,
  SCM_RIGHTS,
  SOCK_STREAM,
  SOL_SOCKET,
} from './libc.ts'
import { checked, lastErrno, NativeError } from './native-error.ts'
import { Scratch } from './scratch.ts'

/** Nothing to read, or no room to write, at present. */
export const WOULD_BLOCK = -1

/** SCM_MAX_FD: no message carries more descriptors, so ours are never cut for want of room. */
const DESCRIPTORS_MAX = 253
const DATA_BYTES = 64 * 1024
const SUN_PATH_BYTES = 108

/** `struct msghdr`, then `struct iovec`, then `struct cmsghdr` with its descriptors, then the data. */
const IOVEC = 56
const CONTROL = 72
const CONTROL_HEADER_BYTES = 16
const CONTROL_BYTES = CONTROL_HEADER_BYTES + 8 * Math.ceil((DESCRIPTORS_MAX * 4) / 8)
const DATA = CONTROL + CONTROL_BYTES
/** Offsets in `struct msghdr`. */
const MSG_IOV = 16
const MSG_IOVLEN = 24
const MSG_CONTROL = 32
const MSG_CONTROLLEN = 40
const MSG_FLAGS = 48

let shared: Scratch | null = null

/** Calls are synchronous, so every socket of a thread uses the same. */
function message(): Scratch {
  if (shared === null) {
    shared = new Scratch(DATA + DATA_BYTES)
    shared.putAddress(MSG_IOV, shared.address + IOVEC)
    shared.putAddress(MSG_IOVLEN, 1)
    shared.putAddress(IOVEC, shared.address + DATA)
  }
  return shared
}

/** A stream socket that carries descriptors beside its bytes. No call on it ever waits. */
export class UnixSocket implements Disposable {
  readonly descriptor: Descriptor

  /** Takes the descriptor over. */
  constructor(descriptor: Descriptor) {
    this.descriptor = descriptor
  }

  /** @throws NativeError */
  static pair(): [UnixSocket, UnixSocket] {
    const ends = message()
    const type = SOCK_STREAM | CLOEXEC | O_NONBLOCK
    checked(libc().socketpair(AF_UNIX, type, 0, ends.address + DATA), 'socketpair')
    const end = (at: number): UnixSocket => new UnixSocket(new Descriptor(ends.view.getInt32(at, true)))
    return [end(DATA), end(DATA + 4)]
  }

  /** An error when nobody listens there, or nobody accepts (EAGAIN). */
  static connect(path: string): UnixSocket | NativeError {
    const address = socketAddress(path)
    if (address instanceof NativeError) return address
    const socket = new UnixSocket(unixSocket())
    if (libc().connect(socket.descriptor.number, address, address.length) === 0) return socket
    const error = NativeError.last('connect', path)
    socket.close()
    return error
  }

  /**
   * Sends what there is room for now: the number of bytes, WOULD_BLOCK, or the error (EPIPE: the peer is gone).
   * The descriptors go with the first byte, and stay open here.
   */
  send(bytes: Uint8Array, descriptors: readonly Descriptor[] = []): number | NativeError {
    if (bytes.length === 0) throw new RangeError('a message without a byte carries nothing')
    if (descriptors.length > DESCRIPTORS_MAX) return new NativeError('sendmsg', 'EINVAL')
    const header = message()
    const lengthBytes = Math.min(bytes.length, DATA_BYTES)
    header.bytes.set(lengthBytes === bytes.length ? bytes : bytes.subarray(0, lengthBytes), DATA)
    prepare(header, lengthBytes, descriptors.length)
    if (descriptors.length > 0) {
      header.putAddress(CONTROL, CONTROL_HEADER_BYTES + descriptors.length * 4)
      header.view.setInt32(CONTROL + 8, SOL_SOCKET, true)
      header.view.setInt32(CONTROL + 12, SCM_RIGHTS, true)
      descriptors.forEach((one, i) => {
        header.view.setInt32(CONTROL + CONTROL_HEADER_BYTES + i * 4, one.number, true)
      })
    }
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL
    const sent = libc().sendmsg(this.descriptor.number, header.address, flags)
    return sent < 0 ? refusal('sendmsg') : sent
  }

  /**
   * Receives at most `into.length` bytes: their number, 0 when the peer has closed, WOULD_BLOCK, or the error.
   * Descriptors that came with them are appended to `descriptors`, and are the caller's to close.
   *
   * EMFILE: descriptors were lost because this process may not have more; those that arrived are closed.
   */
  receive(into: Uint8Array, descriptors: Descriptor[]): number | NativeError {
    if (into.length === 0) throw new RangeError('nothing can be received into no room')
    const header = message()
    prepare(header, Math.min(into.length, DATA_BYTES), DESCRIPTORS_MAX)
    const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC
    const received = libc().recvmsg(this.descriptor.number, header.address, flags)
    if (received < 0) return refusal('recvmsg')
    const arrived = takeDescriptors(header)
    if ((header.view.getInt32(MSG_FLAGS, true) & MSG_CTRUNC) !== 0) {
      for (const one of arrived) one.close()
      return new NativeError('recvmsg', 'EMFILE')
    }
    descriptors.push(...arrived)
    into.set(header.bytes.subarray(DATA, DATA + received))
    return received
  }

  close(): void {
    this.descriptor.close()
  }

  [Symbol.dispose](): void {
    this.descriptor[Symbol.dispose]()
  }
}

/** A new socket, connected to nothing. @throws NativeError */
export function unixSocket(): Descriptor {
  const type = SOCK_STREAM | CLOEXEC | O_NONBLOCK
  return new Descriptor(checked(libc().socket(AF_UNIX, type, 0), 'socket'))
}

/** `struct sockaddr_un`; an error when the path is empty or has no room in it. */
export function socketAddress(path: string): Uint8Array | NativeError {
  const name = new TextEncoder().encode(path)
  if (name.length === 0 || name.includes(0)) return new NativeError('socket', 'EINVAL', path)
  if (!(name.length < SUN_PATH_BYTES)) return new NativeError('socket', 'ENAMETOOLONG', path)
  const address = new Uint8Array(2 + name.length + 1)
  address[0] = AF_UNIX
  address.set(name, 2)
  return address
}

function prepare(header: Scratch, lengthBytes: number, descriptors: number): void {
  const control = descriptors === 0 ? 0 : CONTROL_HEADER_BYTES + 8 * Math.ceil((descriptors * 4) / 8)
  header.putAddress(IOVEC + 8, lengthBytes)
  header.putAddress(MSG_CONTROL, control === 0 ? 0 : header.address + CONTROL)
  header.putAddress(MSG_CONTROLLEN, control)
  header.view.setInt32(MSG_FLAGS, 0, true)
}

/** Every control message that came; one that carries no descriptors is passed over. */
function takeDescriptors(header: Scratch): Descriptor[] {
  const taken: Descriptor[] = []
  const end = CONTROL + header.getAddress(MSG_CONTROLLEN)
  for (let at = CONTROL; at + CONTROL_HEADER_BYTES <= end; ) {
    const lengthBytes = header.getAddress(at)
    const rights =
      header.view.getInt32(at + 8, true) === SOL_SOCKET && header.view.getInt32(at + 12, true) === SCM_RIGHTS
    const count = rights ? Math.floor((lengthBytes - CONTROL_HEADER_BYTES) / 4) : 0
    for (let i = 0; i < count; i++) {
      taken.push(new Descriptor(header.view.getInt32(at + CONTROL_HEADER_BYTES + i * 4, true)))
    }
    at += Math.max(CONTROL_HEADER_BYTES, 8 * Math.ceil(lengthBytes / 8))
  }
  return taken
}

function refusal(call: string): number | NativeError {
  const errno = lastErrno()
  return errno === 'EAGAIN' || errno === 'EINTR' ? WOULD_BLOCK : new NativeError(call, errno)
}
