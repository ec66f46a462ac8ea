import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Descriptor } from '../../native/descriptor.ts'
import { EventDescriptor } from '../../native/event-descriptor.ts'
import { F_SETFL, libc } from '../../native/libc.ts'
import type { NativeError } from '../../native/native-error.ts'
import { waitFor } from '../../native/poll-set.ts'
import { Scratch } from '../../native/scratch.ts'
import { SharedMemory } from '../../native/shared-memory.ts'
import { UnixListener } from '../../native/unix-listener.ts'
import { UnixSocket, WOULD_BLOCK } from '../../native/unix-socket.ts'
import { nativeOrSkip } from './native-or-skip.ts'

const BLOCKING = 0
const PATIENCE_MS = 30_000

function heard(): void {}

describe('an event', () => {
  nativeOrSkip()

  it('is there once, however often it was signalled, until it is drained', () => {
    using event = EventDescriptor.create()
    expect(event.drain()).toBe(false)
    event.signal()
    event.signal()
    expect(event.drain()).toBe(true)
    expect(event.drain()).toBe(false)
  })

  it('never makes us wait, though its peer makes reads and writes wait and fills the counter', () => {
    using event = EventDescriptor.create()
    libc().fcntl(event.descriptor.number, F_SETFL, BLOCKING)
    expect(event.drain()).toBe(false)
    const full = new Scratch(8)
    full.view.setBigUint64(0, 2n ** 64n - 2n, true)
    libc().write(event.descriptor.number, full.address, 8)
    event.signal()
    expect(event.drain()).toBe(true)
    expect(event.drain()).toBe(false)
  })

  it('is waited for as long as was said, whatever signals come meanwhile', () => {
    using event = EventDescriptor.create()
    const { number } = event.descriptor
    // Stays: a signal that comes later, after a failure, would end this process.
    process.on('SIGUSR2', heard)
    const signals = 'kill -USR2 $PPID; '.repeat(5)
    const script = `${signals} printf '\\001\\000\\000\\000\\000\\000\\000\\000' >&3`
    spawn('sh', ['-c', script], { stdio: ['ignore', 'ignore', 'ignore', number] })
    expect(waitFor(event.descriptor, 'readable', PATIENCE_MS)).toBe(true)
    expect(event.drain()).toBe(true)
    expect(waitFor(event.descriptor, 'readable', 1)).toBe(false)
  })

  it('is taken over from a peer only when it is one', () => {
    using memory = SharedMemory.create('test', 4096)
    using pipe = new Descriptor(openSync('/dev/null', 'r'))
    const [left, right] = UnixSocket.pair()
    expect(EventDescriptor.of(memory.descriptor)).toBe(null)
    expect(EventDescriptor.of(pipe)).toBe(null)
    expect(EventDescriptor.of(left.descriptor)).toBe(null)
    expect([memory.descriptor.kind, pipe.kind, left.descriptor.kind]).toEqual(['file', 'other', 'socket'])
    left.close()
    right.close()
    using event = EventDescriptor.create()
    using taken = EventDescriptor.of(event.descriptor.duplicate())
    event.signal()
    expect(taken?.drain()).toBe(true)
  })
})

describe('a socket', () => {
  nativeOrSkip()

  it.each([0, 1, 8, 64, 253])(
    'carries %i descriptors beside its bytes, each with an owner of its own',
    (count) => {
      const [left, right] = UnixSocket.pair()
      using event = EventDescriptor.create()
      const sent = Array.from({ length: count }, () => event.descriptor)
      expect(left.send(Uint8Array.of(1, 2, 3), sent)).toBe(3)
      const into = new Uint8Array(8)
      const came: Descriptor[] = []
      expect(right.receive(into, came)).toBe(3)
      expect([...into.subarray(0, 3)]).toEqual([1, 2, 3])
      expect(came.length).toBe(count)
      for (const one of came) {
        // A program that is started later must not get it.
        expect(readFileSync(`/proc/self/fdinfo/${one.number}`, 'utf8')).toMatch(/^flags:\s*02\d{6}$/m)
        event.signal()
        using taken = EventDescriptor.of(one)
        expect(taken?.drain()).toBe(true)
      }
      expect(right.receive(into, came)).toBe(WOULD_BLOCK)
      left.close()
      right.close()
    },
  )

  it('refuses more descriptors than a message can carry, and sends nothing of it', () => {
    const [left, right] = UnixSocket.pair()
    const sent = Array.from({ length: 254 }, () => left.descriptor)
    expect(left.send(Uint8Array.of(1), sent)).toMatchObject({ errno: 'EINVAL' })
    expect(right.receive(new Uint8Array(1), [])).toBe(WOULD_BLOCK)
    left.close()
    right.close()
  })

  it('never takes more than there is room for, and the descriptors of one message with its first bytes', () => {
    const [left, right] = UnixSocket.pair()
    left.send(Uint8Array.of(1, 2, 3, 4), [left.descriptor])
    left.send(Uint8Array.of(5), [left.descriptor, left.descriptor])
    const into = new Uint8Array(3)
    const counts: [number | NativeError, number][] = []
    for (;;) {
      const came: Descriptor[] = []
      const got = right.receive(into, came)
      for (const one of came) one.close()
      if (got === WOULD_BLOCK) break
      counts.push([got, came.length])
    }
    expect(counts[0]).toEqual([3, 1])
    expect(counts.reduce((sum, [got]) => sum + Number(got), 0)).toBe(5)
    expect(counts.reduce((sum, [, came]) => sum + came, 0)).toBe(3)
    left.close()
    right.close()
  })

  it('says when there is no room, when the peer has closed, and when nobody can be written to', () => {
    const [left, right] = UnixSocket.pair()
    const much = new Uint8Array(60_000).fill(1)
    let sent = 0
    let result = left.send(much)
    for (; typeof result === 'number' && result > 0; result = left.send(much)) sent += result
    expect(result).toBe(WOULD_BLOCK)
    expect(sent).toBeGreaterThan(0)
    const into = new Uint8Array(60_000)
    let received = 0
    for (let got = right.receive(into, []); Number(got) > 0; got = right.receive(into, []))
      received += Number(got)
    expect(received).toBe(sent)
    left.close()
    expect(right.receive(into, [])).toBe(0)
    expect(right.send(much)).toMatchObject({ call: 'sendmsg', errno: 'EPIPE' })
    right.close()
  })
})

describe('a listener', () => {
  nativeOrSkip()
  let folder = ''
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'paravane-socket-'))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  it('is for its owner alone, lets in who connects, and takes its file away', () => {
    const file = path.join(folder, 's')
    const listener = UnixListener.listen(file)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(listener.accept()).toBe(null)
    const client = UnixSocket.connect(file)
    const server = listener.accept()
    if (!(client instanceof UnixSocket && server instanceof UnixSocket)) throw new Error('not connected')
    client.send(Uint8Array.of(9))
    const into = new Uint8Array(2)
    expect(server.receive(into, [])).toBe(1)
    client.close()
    server.close()
    listener.close()
    expect(existsSync(file)).toBe(false)
    expect(UnixSocket.connect(file)).toMatchObject({ call: 'connect', errno: 'ENOENT' })
  })

  it('replaces a file that nobody listens at, and nothing else', () => {
    const file = path.join(folder, 's')
    const dead = UnixListener.listen(file)
    // As a kill leaves it: no longer open, still there.
    dead.descriptor.close()
    expect(UnixSocket.connect(file)).toMatchObject({ errno: 'ECONNREFUSED' })
    const listener = UnixListener.listen(file)
    expect(() => UnixListener.listen(file)).toThrow('EADDRINUSE')
    expect(existsSync(file)).toBe(true)
    listener.close()
    writeFileSync(file, 'mine')
    expect(() => UnixListener.listen(file)).toThrow('EADDRINUSE')
    expect(statSync(file).size).toBe(4)
  })

  it('takes one that is too busy to accept for alive', () => {
    const file = path.join(folder, 's')
    const busy = UnixListener.listen(file)
    const waiting: UnixSocket[] = []
    let last = UnixSocket.connect(file)
    for (; last instanceof UnixSocket; last = UnixSocket.connect(file)) waiting.push(last)
    expect(last).toMatchObject({ call: 'connect', errno: 'EAGAIN' })
    expect(() => UnixListener.listen(file)).toThrow('EADDRINUSE')
    for (const one of waiting) one.close()
    busy.close()
  })

  it('leaves the file of whoever took its place', () => {
    const file = path.join(folder, 's')
    const first = UnixListener.listen(file)
    rmSync(file)
    const second = UnixListener.listen(file)
    first.close()
    expect(existsSync(file)).toBe(true)
    second.close()
  })

  it('names a path that is too long, or empty', () => {
    const long = path.join(folder, 'x'.repeat(120))
    expect(() => UnixListener.listen(long)).toThrow('ENAMETOOLONG')
    expect(UnixSocket.connect(long)).toMatchObject({ errno: 'ENAMETOOLONG' })
    expect(UnixSocket.connect('')).toMatchObject({ errno: 'EINVAL' })
  })
})
