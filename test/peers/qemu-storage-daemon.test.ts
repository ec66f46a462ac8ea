import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { type Bench, createBench } from '../../bench/bench.ts'
import { DsmAction, Ioctl } from '../../guest/class/disk/ioctl.ts'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import { UserFile } from '../../guest/user.ts'
import { openDescriptors } from '../../native/descriptor.ts'
import { nativeAbsent } from '../../native/platform.ts'
import { mappedBytes } from '../../native/shared-memory.ts'
import { peerOrSkip } from './peer.ts'
import { DAEMON, daemonMissing, StorageDaemon } from './storage-daemon.ts'

const MISSING = nativeAbsent() ?? daemonMissing()
const MIB = 2 ** 20

/** Content that no two sectors share. */
function content(lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  const words = new Uint32Array(bytes.buffer)
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 0x9e37_79b1)
  return bytes
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** DEVICE_MANAGE_DATA_SET_ATTRIBUTES: trim of one range. */
function trimOf(offset: number, lengthBytes: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(48))
  // Size, action, where the ranges are and how long.
  for (const [at, value] of [
    [0, 28],
    [4, DsmAction.TRIM],
    [20, 32],
    [24, 16],
  ] as const) {
    view.setUint32(at, value, true)
  }
  view.setBigUint64(32, BigInt(offset), true)
  view.setBigUint64(40, BigInt(lengthBytes), true)
  return new Uint8Array(view.buffer)
}

interface Around {
  readonly daemon: StorageDaemon
  readonly bench: Bench
}

/** A bench over a daemon; afterwards this process has the descriptors and mappings that it had before. */
async function over(
  options: { readonly write?: boolean; readonly spec?: string; readonly operations?: number },
  body: (around: Around) => Promise<void>,
): Promise<void> {
  const { write = true, spec = '', operations = 80 } = options
  const before = { descriptors: openDescriptors(), mapped: mappedBytes() }
  using daemon = new StorageDaemon({ image: content(8 * MIB) })
  await daemon.start()
  {
    await using bench = await createBench({
      seed: 7,
      disks: [{ spec: `vhost-user:${daemon.socket}${spec}`, write }],
      operations,
    })
    await body({ daemon, bench })
  }
  await daemon.kill()
  expect({ descriptors: openDescriptors(), mapped: mappedBytes() }).toEqual(before)
}

describe('our driver under the whole stack against qemu-storage-daemon', () => {
  it('reads the whole disk as it is, and changes nothing without leave to write', async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over({ write: false }, async ({ daemon, bench }) => {
      const report = await bench.run()
      expect(report.problems).toEqual([])
      expect(report.violations).toEqual([])
      expect(report.verified).toBe(true)
      expect(report.disks[0]?.sha256).toBe(digest(content(8 * MIB)))
      await expect(bench.disk(0).write(0, new Uint8Array(512))).rejects.toThrow(/WRITE_PROTECTED/)
      expect(digest(readFileSync(daemon.image))).toBe(digest(content(8 * MIB)))
    })
  }, 60_000)

  it('trims what an application trims: it reads as zeroes, and the file gives its room back', async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over({}, async ({ daemon, bench }) => {
      const roomBefore = statSync(daemon.image).blocks
      const { user } = bench.machine
      const status = await bench.machine.run(function* () {
        const file = yield* user.open('\\\\.\\PhysicalDrive0')
        if (!(file instanceof UserFile)) return file
        const trimmed = yield* file.control(Ioctl.STORAGE_MANAGE_DATA_SET_ATTRIBUTES, trimOf(MIB, MIB), 0)
        yield* file.close()
        return trimmed.status
      })
      expect(ntStatusName(status)).toBe('SUCCESS')
      const disk = bench.disk(0)
      await disk.flush()
      const expected = content(8 * MIB).fill(0, MIB, 2 * MIB)
      expect(Buffer.compare(await disk.read(0, 8 * MIB), expected)).toBe(0)
      expect(Buffer.compare(readFileSync(daemon.image), expected)).toBe(0)
      expect(statSync(daemon.image).blocks).toBeLessThan(roomBefore)
    })
  }, 60_000)

  it('writes and flushes, and the file has what was written', async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over({}, async ({ daemon, bench }) => {
      const report = await bench.run()
      expect(report.problems).toEqual([])
      expect(report.violations).toEqual([])
      expect(report.disks[0]?.workload.comparedBytes).toBeGreaterThan(0)
      const disk = bench.disk(0)
      const bytes = content(MIB).reverse()
      await disk.write(3 * MIB, bytes)
      await disk.flush()
      expect(Buffer.compare(await disk.read(3 * MIB, MIB), bytes)).toBe(0)
      expect(Buffer.compare(readFileSync(daemon.image).subarray(3 * MIB, 4 * MIB), bytes)).toBe(0)
    })
  }, 60_000)

  it('that is killed: an error at the application, a line that says why, and nothing left behind', async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over({}, async ({ daemon, bench }) => {
      const disk = bench.disk(0)
      expect((await disk.read(0, 4096)).length).toBe(4096)
      await daemon.kill()
      await expect(disk.read(8192, 4096)).rejects.toThrow()
      const report = await bench.run()
      expect(report.verified).toBe(false)
      expect(report.problems.map(({ text }) => text)).toContainEqual(
        expect.stringMatching(/^the daemon at .*disk\.sock closed the connection$/),
      )
    })
  }, 60_000)

  it('that is killed and comes back within the time it has: the application notices nothing', async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over({ spec: ',reconnect=20000' }, async ({ daemon, bench }) => {
      const disk = bench.disk(0)
      for (let round = 0; round < 3; round++) {
        const written = content(64 * 1024).fill(round + 1, 0, 512)
        await disk.write(round * MIB, written)
        await daemon.kill()
        const [read] = await Promise.all([disk.read(round * MIB, 64 * 1024), daemon.start()])
        expect(Buffer.compare(read, written)).toBe(0)
      }
      const report = await bench.run()
      expect(report.problems).toEqual([])
      expect(report.disks[0]?.daemon?.connections).toBe(4)
    })
  }, 60_000)

  it('that stalls: the guest’s own timeouts end what is out, and the application hears', async (test) => {
    peerOrSkip(test, DAEMON, MISSING)
    await over({ spec: ',patience=300' }, async ({ daemon, bench }) => {
      const disk = bench.disk(0)
      daemon.signal('SIGSTOP')
      await expect(disk.read(8192, 4096)).rejects.toThrow()
      expect(bench.machine.machine.clock.now()).toBeGreaterThan(10_000_000)
    })
  }, 60_000)
})
