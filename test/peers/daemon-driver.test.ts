import { readFileSync, statSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { openDescriptors } from '../../native/descriptor.ts'
import { nativeAbsent } from '../../native/platform.ts'
import { mappedBytes } from '../../native/shared-memory.ts'
import { BlkStatus, BlkType, SECTOR_BYTES } from '../../protocol/virtio/blk.ts'
import { DaemonDriver } from './daemon-driver.ts'
import { peerOrSkip } from './peer.ts'
import { Qmp } from './qmp.ts'
import { DAEMON, daemonMissing, StorageDaemon } from './storage-daemon.ts'

const MISSING = nativeAbsent() ?? daemonMissing()
const MIB = 2 ** 20
const TIMEOUT_MS = 60_000
const IMAGE_BYTES = 4 * MIB

/** No byte of it is zero. */
const CONTENT = Uint8Array.from({ length: IMAGE_BYTES }, (_, at) => 1 + ((at * 7 + (at >>> 9)) % 255))

interface Around {
  readonly daemon: StorageDaemon
  readonly driver: DaemonDriver
}

/** The bare driver before a daemon; afterwards this process has the descriptors and mappings that it had before. */
async function over(body: (around: Around) => Promise<void>): Promise<void> {
  const own = { descriptors: openDescriptors(), mapped: mappedBytes() }
  using daemon = new StorageDaemon({ image: CONTENT })
  await daemon.start()
  {
    await using driver = await DaemonDriver.start(daemon.socket)
    await body({ daemon, driver })
    expect(driver.violations).toEqual([])
    expect(driver.rig.violations).toEqual([])
  }
  await daemon.kill()
  expect({ descriptors: openDescriptors(), mapped: mappedBytes() }).toEqual(own)
}

/** What the disk has to hold once `[from, to)` is zero. */
function zeroed(from: number, to: number): Uint8Array {
  return CONTENT.slice().fill(0, from, to)
}

describe('the bare driver before the disk of qemu-storage-daemon', () => {
  it.for([
    { what: 'writes zeroes', type: BlkType.WRITE_ZEROES, unmap: false, frees: false },
    { what: 'writes zeroes and gives the room back', type: BlkType.WRITE_ZEROES, unmap: true, frees: true },
    { what: 'discards', type: BlkType.DISCARD, unmap: false, frees: true },
  ])(
    '$what, there and nowhere else, in the file too once flushed',
    {
      timeout: TIMEOUT_MS,
    },
    async ({ type, unmap, frees }, test) => {
      peerOrSkip(test, DAEMON, MISSING)
      await over(async ({ daemon, driver }) => {
        const roomBefore = statSync(daemon.image).blocks
        expect(await driver.range(type, { sector: 2048, sectors: 1024, unmap })).toBe(BlkStatus.OK)
        await driver.flush()
        const expected = zeroed(2048 * SECTOR_BYTES, 3072 * SECTOR_BYTES)
        expect(Buffer.compare(await driver.read(0, IMAGE_BYTES), expected)).toBe(0)
        expect(Buffer.compare(readFileSync(daemon.image), expected)).toBe(0)
        expect(statSync(daemon.image).blocks < roomBefore).toBe(frees)
      })
    },
  )

  it(
    'is refused what lies past the end, and what was written before stays',
    async (test) => {
      peerOrSkip(test, DAEMON, MISSING)
      await over(async ({ daemon, driver }) => {
        const last = driver.sectors - 1
        for (const type of [BlkType.WRITE_ZEROES, BlkType.DISCARD]) {
          expect(await driver.range(type, { sector: last, sectors: 2 })).toBe(BlkStatus.IOERR)
        }
        await driver.write(last, CONTENT.subarray(0, SECTOR_BYTES))
        await driver.flush()
        expect(
          Buffer.compare(
            readFileSync(daemon.image).subarray(-SECTOR_BYTES),
            CONTENT.subarray(0, SECTOR_BYTES),
          ),
        ).toBe(0)
      })
    },
    TIMEOUT_MS,
  )

  it('goes on while its disk grows under it, of which QEMU 7.2 says nothing to a front-end', {
    timeout: TIMEOUT_MS,
  }, async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over(async ({ daemon, driver }) => {
      const qmp = new Qmp(daemon.monitor)
      qmp.ask('block_resize', { 'node-name': 'disk', size: 6 * MIB })
      qmp.close()
      expect(statSync(daemon.image).size).toBe(6 * MIB)
      const last = IMAGE_BYTES / SECTOR_BYTES - 1
      const written = CONTENT.subarray(0, SECTOR_BYTES)
      await driver.write(last, written)
      expect(Buffer.compare(await driver.read(last, SECTOR_BYTES), written)).toBe(0)
      // A later QEMU tells: the driver knows the new size then.
      expect([last + 1, (6 * MIB) / SECTOR_BYTES]).toContain(driver.sectors)
    })
  })
})
