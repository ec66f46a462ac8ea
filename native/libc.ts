import { ffi } from './platform.ts'

/**
 * The C library, as far as it is called. Addresses are numbers: those of user space fit into 2^47.
 *
 * No address of a JavaScript buffer is ever taken: the collector may move on while a number still points there.
 * What a call reads or writes lies in `scratch` memory, or is a typed array handed over for that call alone.
 */
export interface Libc {
  readonly accept4: (socket: number, address: number, length: number, flags: number) => number
  readonly bind: (socket: number, address: Uint8Array, lengthBytes: number) => number
  readonly close: (descriptor: number) => number
  readonly connect: (socket: number, address: Uint8Array, lengthBytes: number) => number
  readonly eventfd: (initial: number, flags: number) => number
  readonly fcntl: (descriptor: number, command: number, value: number) => number
  readonly ftruncate: (descriptor: number, lengthBytes: number) => number
  readonly listen: (socket: number, backlog: number) => number
  readonly memfd_create: (name: string, flags: number) => number
  readonly mmap: (
    address: number,
    lengthBytes: number,
    protection: number,
    flags: number,
    descriptor: number,
    offset: number,
  ) => number
  readonly munmap: (address: number, lengthBytes: number) => number
  readonly ppoll: (descriptors: number, count: number, timeout: number, signals: number) => number
  readonly prctl: (option: number, one: number, two: number, three: number, four: number) => number
  readonly read: (descriptor: number, address: number, lengthBytes: number) => number
  readonly recvmsg: (socket: number, header: number, flags: number) => number
  readonly sendmsg: (socket: number, header: number, flags: number) => number
  readonly socket: (domain: number, type: number, protocol: number) => number
  readonly socketpair: (domain: number, type: number, protocol: number, pair: number) => number
  readonly write: (descriptor: number, address: number, lengthBytes: number) => number
  readonly errno: () => number
}

let bound: Libc | null = null

/** @throws when `nativeAbsent`. */
export function libc(): Libc {
  bound ??= bind()
  return bound
}

function bind(): Libc {
  const { load, errno } = ffi()
  // Without a name it is the program itself, which has the C library in it, whichever that is.
  const library = load(null)
  const declared = (definition: string) => library.func(definition)
  return {
    accept4: declared('int accept4(int, int64, int64, int)'),
    bind: declared('int bind(int, const void *, uint32)'),
    close: declared('int close(int)'),
    connect: declared('int connect(int, const void *, uint32)'),
    eventfd: declared('int eventfd(uint, int)'),
    // Variadic in C; with integers alone, x64 and Linux on arm64 pass these alike.
    fcntl: declared('int fcntl(int, int, int64)'),
    ftruncate: declared('int ftruncate(int, int64)'),
    listen: declared('int listen(int, int)'),
    memfd_create: declared('int memfd_create(const char *, uint)'),
    mmap: declared('int64 mmap(int64, size_t, int, int, int, int64)'),
    munmap: declared('int munmap(int64, size_t)'),
    ppoll: declared('int ppoll(int64, size_t, int64, int64)'),
    // Variadic in C, too.
    prctl: declared('int prctl(int, int64, int64, int64, int64)'),
    read: declared('int64 read(int, int64, size_t)'),
    recvmsg: declared('int64 recvmsg(int, int64, int)'),
    sendmsg: declared('int64 sendmsg(int, int64, int)'),
    socket: declared('int socket(int, int, int)'),
    socketpair: declared('int socketpair(int, int, int, int64)'),
    write: declared('int64 write(int, int64, size_t)'),
    errno,
  }
}

export const O_NONBLOCK = 0o4000
export const CLOEXEC = 0o2000000

export const AF_UNIX = 1
export const SOCK_STREAM = 1
export const SOL_SOCKET = 1
export const SCM_RIGHTS = 1
export const MSG_CTRUNC = 0x8
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
export const MSG_CMSG_CLOEXEC = 0x4000_0000

export const PROT_READ_WRITE = 0x3
export const MAP_SHARED = 0x1
export const MAP_PRIVATE = 0x2
export const MAP_FIXED = 0x10
export const MAP_ANONYMOUS = 0x20
export const MAP_NORESERVE = 0x4000

export const MFD_CLOEXEC = 0x1
export const MFD_ALLOW_SEALING = 0x2
export const F_SETFL = 4
export const F_DUPFD_CLOEXEC = 1030
export const F_ADD_SEALS = 1033
export const F_GET_SEALS = 1034

export const POLLIN = 0x1
export const POLLOUT = 0x4
export const POLLNVAL = 0x20
