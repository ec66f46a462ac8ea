import { expect, it } from 'vitest'
import { type NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { InterfaceClass } from '../../guest/kernel/pnp/device-interface.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { UserFile } from '../../guest/user.ts'
import { opened } from '../host/disk-subjects.ts'
import { BootedGuest, NOTHING_LEFT } from './booted-guest.ts'

/** ntddstor.h. */
const DISK = '53f56307-b6bf-11d0-94f2-00a0c91efb8b'
const STORAGE_PORT = '2accfe60-c130-11d2-b082-00a0c91efb8b'
const DISK_PATH = `\\\\?\\SCSI#Disk&Ven_Paravane&Prod_VirtIO_Disk#3&ecd7fac4&0&000000#{${DISK}}`
const PORT_PATH = `\\\\?\\ACPI#LNRO0005#00#{${STORAGE_PORT}}`

async function guestWith(body: (guest: BootedGuest) => Waiting<void>): Promise<void> {
  const guest = new BootedGuest()
  guest.attach(await opened('memory:size=1M'))
  guest.run(() => body(guest))
  expect(guest.finish()).toEqual(NOTHING_LEFT)
}

const shown = ({ user }: BootedGuest): string[] => [
  ...user.deviceInterfaces(InterfaceClass.DISK),
  ...user.deviceInterfaces(InterfaceClass.STORAGE_PORT),
]

/** Opens, reads, closes; what it answered. */
function* used({ user }: BootedGuest, path: string): Waiting<string> {
  const file = yield* user.open(path)
  if (!(file instanceof UserFile)) return ntStatusName(file)
  const buffer = user.allocate(512)
  const { status } = yield* file.read(buffer, 512, 512)
  user.free(buffer)
  yield* file.close()
  return ntStatusName(status)
}

it('a disk and its port are found by what they are while they work, and opened by the paths that were found', () =>
  guestWith(function* (guest) {
    const { kernel } = guest
    yield* guest.boot(false)
    expect([shown(guest), yield* used(guest, DISK_PATH)]).toEqual([[], 'OBJECT_NAME_NOT_FOUND'])
    guest.plug()
    yield* kernel.pnp.settle()
    expect([shown(guest), yield* used(guest, DISK_PATH)]).toEqual([[DISK_PATH, PORT_PATH], 'SUCCESS'])
    // As a person may write it.
    expect(yield* used(guest, DISK_PATH.toUpperCase())).toBe('SUCCESS')
    const disk = guest.path('SCSI\\') ?? ''
    expect(yield* kernel.pnp.disableDevice(disk)).toBe(null)
    expect([shown(guest), yield* used(guest, DISK_PATH)]).toEqual([[PORT_PATH], 'OBJECT_NAME_NOT_FOUND'])
    yield* kernel.pnp.enableDevice(disk)
    expect(shown(guest)).toEqual([DISK_PATH, PORT_PATH])
    // Stopped for a moment, it is still the same.
    expect(yield* kernel.pnp.rebalance(guest.path('ACPI\\') ?? '')).toBe(null)
    expect([shown(guest), yield* used(guest, DISK_PATH)]).toEqual([[DISK_PATH, PORT_PATH], 'SUCCESS'])
    expect(yield* kernel.pnp.removeDevice(guest.path('ACPI\\') ?? '')).toBe(null)
    expect(shown(guest)).toEqual([])
    yield* kernel.pnp.rescan()
    expect(shown(guest)).toEqual([DISK_PATH, PORT_PATH])
  }))

it('a disk that does not start is not found', () =>
  guestWith(function* (guest) {
    const { kernel } = guest
    yield* guest.boot(false)
    // The memory for what a disk is asked with is not there.
    kernel.parts.pool.refuse = (tag) => tag === 0x6d436353
    guest.plug()
    yield* kernel.pnp.settle()
    kernel.parts.pool.refuse = null
    expect(guest.shown().at(-1)).toMatch(/^SCSI.* problem 10$/)
    expect(shown(guest)).toEqual([PORT_PATH])
    yield* kernel.pnp.enableDevice(guest.path('SCSI\\') ?? '')
    expect(shown(guest)).toEqual([DISK_PATH, PORT_PATH])
  }))

it('a disk that is pulled out is gone from the list at once, though open; its successor is found by the same path', () =>
  guestWith(function* (guest) {
    const { kernel, user } = guest
    yield* guest.boot()
    const before = yield* user.open(DISK_PATH)
    guest.unplug()
    yield* kernel.pnp.settle()
    expect(shown(guest)).toEqual([])
    guest.plug()
    yield* kernel.pnp.settle()
    expect([shown(guest), yield* used(guest, DISK_PATH)]).toEqual([[DISK_PATH, PORT_PATH], 'SUCCESS'])
    if (before instanceof UserFile) yield* before.close()
    yield* kernel.pnp.settle()
    // The end of the one before takes nothing of it away.
    expect([shown(guest), yield* used(guest, DISK_PATH)]).toEqual([[DISK_PATH, PORT_PATH], 'SUCCESS'])
  }))

it('is registered once, disabled, and enabled and disabled once each, as IoSetDeviceInterfaceState answers', () =>
  guestWith(function* (guest) {
    const { kernel } = guest
    const { interfaces } = kernel.pnp
    yield* guest.boot()
    const pdo = kernel.parts.names.find(DISK_PATH.replace('\\\\?', '\\??'))?.device
    const fdo = kernel.parts.names.find('\\??\\PhysicalDrive0')?.device
    if (pdo === undefined || fdo === undefined) throw new Error('no disk')
    const guid = '01234567-89ab-cdef-0123-456789abcdef'
    // A device that no bus reported has no interface.
    expect(ntStatusName(interfaces.register(fdo, guid) as NtStatus)).toBe('INVALID_DEVICE_REQUEST')
    const link = interfaces.register(pdo, guid, 'port0')
    if (typeof link !== 'string') throw new Error('not registered')
    expect(link).toBe(`\\??\\SCSI#Disk&Ven_Paravane&Prod_VirtIO_Disk#3&ecd7fac4&0&000000#{${guid}}\\port0`)
    expect(interfaces.register(pdo, guid, 'PORT0')).toBe(link)
    expect([interfaces.list(guid), interfaces.list(guid, true)]).toEqual([[], [link]])
    const set = (name: string, enable: boolean): string => ntStatusName(interfaces.setState(name, enable))
    expect(set(`${link}x`, true)).toBe('OBJECT_NAME_NOT_FOUND')
    expect(set(link, false)).toBe('OBJECT_NAME_NOT_FOUND')
    expect([set(link, true), set(link, true)]).toEqual(['SUCCESS', 'OBJECT_NAME_EXISTS'])
    expect([interfaces.list(guid), interfaces.list(guid, true)]).toEqual([[link], [link]])
    expect([set(link, false), set(link, false)]).toEqual(['SUCCESS', 'OBJECT_NAME_NOT_FOUND'])
    // What a driver leaves enabled goes with its device.
    set(link, true)
    yield* kernel.pnp.removeDevice(guest.path('SCSI\\') ?? '')
    expect([interfaces.list(guid), interfaces.list(guid, true)]).toEqual([[], [link]])
    expect(kernel.parts.names.find(link)).toBe(null)
  }))
