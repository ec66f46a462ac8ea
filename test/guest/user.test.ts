import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { type OpenOptions, Overlapped, User, UserFile, UserPort } from '../../guest/user.ts'
import { DiskRig, NO_LEAKS } from './disk-rig.ts'

interface Scene {
  readonly rig: DiskRig
  readonly user: User
  open(options?: OpenOptions, path?: string): Waiting<UserFile>
}

/** A started disk and an application; afterwards nothing of either is left. */
function scene(body: (scene: Scene) => Waiting<unknown>, version: 'xp' | 7 = 7, seed?: number): void {
  const rig = new DiskRig(
    { sectors: 64 },
    { version: WINDOWS_VERSIONS[version], ...(seed === undefined ? {} : { seed }) },
  )
  const user = new User(rig.kernel)
  rig.machine.run(function* () {
    yield* rig.start()
    yield* body({
      rig,
      user,
      *open(options = {}, path = '\\\\.\\PhysicalDrive0') {
        const file = yield* user.open(path, options)
        if (!(file instanceof UserFile)) throw new Error(ntStatusName(file))
        return file
      },
    })
    rig.unit.fault = () => null
    user.release()
    yield* rig.remove()
  })
  const { parts, nt } = rig.kernel
  expect(rig.leaks()).toEqual(NO_LEAKS)
  expect([parts.files.count, nt.handles.count, parts.space.userBufferCount, parts.events.count]).toEqual([
    0, 0, 0, 0,
  ])
}

describe('an application', () => {
  it('opens what is there by any case of its name, and nothing else', () => {
    scene(function* ({ user, open }) {
      for (const path of ['\\\\.\\PhysicalDrive0', '\\\\.\\PHYSICALDRIVE0', '\\\\?\\Harddisk0Partition0']) {
        yield* (yield* open({}, path)).close()
      }
      const refused = [
        ['\\\\.\\PhysicalDrive1', 'OBJECT_NAME_NOT_FOUND'],
        ['\\\\.\\Harddisk0Partition1', 'OBJECT_NAME_NOT_FOUND'],
        ['PhysicalDrive0', 'OBJECT_NAME_INVALID'],
        ['\\\\.\\', 'OBJECT_NAME_INVALID'],
        ['\\\\.\\a\\b', 'OBJECT_NAME_INVALID'],
      ] as const
      for (const [path, why] of refused) {
        const file = yield* user.open(path)
        expect(file instanceof UserFile ? 'opened' : ntStatusName(file)).toBe(why)
      }
    })
  })

  it('is refused what its handle does not allow', () => {
    scene(function* ({ user, open }) {
      const buffer = user.allocate(512)
      const reader = yield* open({ write: false })
      expect(ntStatusName((yield* reader.write(buffer, 512, 0)).status)).toBe('ACCESS_DENIED')
      expect(ntStatusName((yield* reader.read(buffer, 512, 0)).status)).toBe('SUCCESS')
      expect(ntStatusName(yield* reader.flush())).toBe('ACCESS_DENIED')
      const writer = yield* open({ read: false })
      expect(ntStatusName((yield* writer.read(buffer, 512, 0)).status)).toBe('ACCESS_DENIED')
      expect(ntStatusName((yield* writer.control(0x7405c, new Uint8Array(0), 8)).status)).toBe(
        'ACCESS_DENIED',
      )
      expect(ntStatusName((yield* writer.read(1, 512, 0)).status)).toBe('ACCESS_DENIED')
      expect(ntStatusName((yield* reader.read(1, 512, 0)).status)).toBe('ACCESS_VIOLATION')
      yield* reader.close()
      yield* writer.close()
      expect(ntStatusName((yield* reader.read(buffer, 512, 0)).status)).toBe('INVALID_HANDLE')
      user.free(buffer)
    })
  })

  it('has errors of late requests told like errors of early ones, synchronous or overlapped', () => {
    for (const overlapped of [false, true]) {
      for (const delayUs of [undefined, 500]) {
        scene(function* ({ rig, user, open }) {
          const buffer = user.allocate(512)
          const file = yield* open({ overlapped })
          rig.unit.fault = () => ({
            srbStatus: 4,
            scsiStatus: 2,
            sense: [5, 0x21, 0],
            ...(delayUs === undefined ? {} : { delayUs }),
          })
          const read = yield* file.read(buffer, 512, 0)
          expect([ntStatusName(read.status), read.information]).toEqual(['NONEXISTENT_SECTOR', 0])
          yield* file.close()
          user.free(buffer)
        })
      }
    }
  })

  it('writes through to the medium when it opened the disk so', () => {
    scene(function* ({ rig, user, open }) {
      const buffer = user.allocate(512)
      for (const writeThrough of [false, true]) {
        const file = yield* open({ writeThrough })
        yield* file.write(buffer, 512, 0)
        expect((rig.unit.seen.at(-1)?.cdb[1] ?? 0) & 8).toBe(writeThrough ? 8 : 0)
        yield* file.close()
      }
      user.free(buffer)
    })
  })

  it('has many requests under way, each told once by its event or its port, in any order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        fc.nat(1000),
        (delays, ported, seed) => {
          scene(
            function* ({ rig, user, open }) {
              const file = yield* open({ overlapped: true })
              const port = user.createPort()
              if (!(port instanceof UserPort)) throw new Error('no port')
              if (ported) expect(file.associate(port, 77)).toBe(0)
              const order = [...delays]
              rig.unit.fault = () => ({ delayUs: order.shift() ?? 1 })
              const buffer = user.allocate(512 * delays.length)
              const begun: Overlapped[] = []
              for (const index of delays.keys()) {
                user.put(buffer + index * 512, new Uint8Array(512).fill(index + 1))
                const one = yield* file.begin(true, buffer + index * 512, 512, index * 512, index + 1)
                if (!(one instanceof Overlapped)) throw new Error('refused')
                begun.push(one)
              }
              if (ported) {
                const told = new Set<number>()
                for (const _ of delays) {
                  const packet = yield* port.next()
                  if (typeof packet === 'number') throw new Error(ntStatusName(packet))
                  expect([packet.key, packet.status, packet.information]).toEqual([77, 0, 512])
                  told.add(packet.apcContext)
                }
                expect(told.size).toBe(delays.length)
                expect(yield* port.next(0)).toBe(0x102)
                for (const one of begun) yield* file.end(one)
              } else {
                for (const one of begun)
                  expect(yield* file.result(one)).toEqual({ status: 0, information: 512 })
              }
              for (const index of delays.keys()) expect(rig.unit.bytes[index * 512]).toBe(index + 1)
              user.free(buffer)
              yield* file.close()
              yield* port.close()
            },
            7,
            seed,
          )
        },
      ),
      { numRuns: 25 },
    )
  })

  it('calls its requests back: all of a thread with CancelIo, one with CancelIoEx from Vista', () => {
    for (const version of ['xp', 7] as const) {
      scene(function* ({ rig, user, open }) {
        const file = yield* open({ overlapped: true })
        const buffer = user.allocate(1024)
        rig.unit.fault = () => ({ never: true })
        const first = yield* file.begin(false, buffer, 512, 0)
        const second = yield* file.begin(false, buffer + 512, 512, 512)
        if (!(first instanceof Overlapped && second instanceof Overlapped)) throw new Error('refused')
        const one = file.cancelEx(first)
        expect(ntStatusName(one)).toBe(version === 'xp' ? 'NOT_IMPLEMENTED' : 'SUCCESS')
        if (version === 7) expect(ntStatusName((yield* file.result(first)).status)).toBe('CANCELLED')
        expect(file.isDone(second)).toBe(false)
        expect(yield* file.cancel()).toBe(0)
        expect(ntStatusName((yield* file.result(second)).status)).toBe('CANCELLED')
        if (version === 'xp') expect(ntStatusName((yield* file.result(first)).status)).toBe('CANCELLED')
        user.free(buffer)
        yield* file.close()
      }, version)
    }
  })

  it('keeps a removed disk open until it closes it, and hears NO_SUCH_DEVICE', () => {
    const rig = new DiskRig({ sectors: 64 })
    const user = new User(rig.kernel)
    rig.machine.run(function* () {
      yield* rig.start()
      const file = yield* user.open('\\\\.\\PhysicalDrive0')
      if (!(file instanceof UserFile)) throw new Error('not opened')
      const buffer = user.allocate(512)
      rig.unit.vanish()
      yield* rig.pnp(0x17)
      expect(ntStatusName((yield* file.read(buffer, 512, 0)).status)).toBe('NO_SUCH_DEVICE')
      expect(ntStatusName(yield* file.flush())).toBe('NO_SUCH_DEVICE')
      const again = yield* user.open('\\\\.\\PhysicalDrive0')
      expect(again instanceof UserFile ? 'opened' : ntStatusName(again)).toBe('NO_SUCH_DEVICE')
      yield* file.close()
      user.free(buffer)
      user.release()
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })
})
