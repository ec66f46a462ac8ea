import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { createBench } from '../../bench/bench.ts'
import { openDescriptors } from '../../native/descriptor.ts'
import { nativeAbsent } from '../../native/platform.ts'
import { mappedBytes } from '../../native/shared-memory.ts'
import { noise } from '../conformance/disk-backend.ts'
import { workplace } from './built.ts'

const absent = nativeAbsent()
if (absent !== null) process.stdout.write(`our driver against paravane serve is not tested: ${absent}\n`)

const KILLS = 3
const place = workplace()
const { directory } = place

const image = path.join(directory, 'disk.img')
const socket = path.join(directory, 'disk.sock')

/** A server of our own that listens. */
async function serving(spec: string): Promise<ChildProcess> {
  const child = place.built.start(['serve', spec, '--socket', socket], directory)
  await new Promise<void>((resolve, reject) => {
    let said = ''
    child.stdout?.on('data', (text) => {
      said += String(text)
      if (/Ctrl-C\n/.test(said)) resolve()
    })
    child.once('exit', () => reject(new Error(`it ended, and said ${said}`)))
  })
  return child
}

async function killed(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await gone
}

describe.skipIf(absent !== null)('our driver under the whole stack against paravane serve', () => {
  test('reads the whole disk, verifies writes, and leaves nothing behind', async () => {
    fs.writeFileSync(image, noise(4 << 20, 3))
    const before = { descriptors: openDescriptors(), mapped: mappedBytes() }
    const child = await serving('file:disk.img')
    {
      await using bench = await createBench({
        seed: 3,
        disks: [{ spec: `vhost-user:${socket}`, write: true }],
        operations: 500,
      })
      const report = await bench.run()
      expect(report.problems).toEqual([])
      expect(report.violations).toEqual([])
      const [disk] = report.disks
      expect(disk?.sha256).toBe(
        createHash('sha256')
          .update(noise(4 << 20, 3))
          .digest('hex'),
      )
      expect(disk?.workload.comparedBytes).toBeGreaterThan(0)
    }
    await killed(child)
    expect({ descriptors: openDescriptors(), mapped: mappedBytes() }).toEqual(before)
  }, 60_000)

  test(`whose server is killed ${KILLS} times under load: nothing that was answered is undone, nothing is lost`, async () => {
    fs.writeFileSync(image, noise(4 << 20, 4))
    let child = await serving('file:disk.img')
    await using bench = await createBench({
      seed: 4,
      disks: [{ spec: `vhost-user:${socket},reconnect=30000`, write: true }],
      operations: 3000,
    })
    let over = false
    const run = bench.run().finally(() => {
      over = true
    })
    let kills = 0
    while (!over && kills < KILLS) {
      // Any moment will do.
      await new Promise((resolve) => setTimeout(resolve, 150))
      if (over) break
      await killed(child)
      child = await serving('file:disk.img')
      kills++
    }
    const report = await run
    expect(report.problems).toEqual([])
    expect(report.violations).toEqual([])
    expect(report.disks[0]?.daemon?.connections).toBeGreaterThan(1)
    // It had its requests done by the next server, and was not made to begin again.
    expect(bench.machine.disks[0]?.adapter?.counts).toMatchObject({ resets: 0, orphans: 0 })
    await killed(child)
  }, 90_000)
})
