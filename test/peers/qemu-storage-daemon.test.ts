import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { type Bench, createBench } from '../../bench/bench.ts'
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

  it('writes, flushes and trims, and the file has what was written', async (test) => {
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
