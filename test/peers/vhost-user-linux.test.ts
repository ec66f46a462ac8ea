import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nativeAbsent } from '../../native/platform.ts'
import { Built } from '../bin/built.ts'
import { drawnImage, IMAGE_BYTES, sumOf } from './linux-guest/drawn-image.ts'
import { type LinuxKernel, linuxGuestMissing, linuxKernel, makeInitramfs } from './linux-guest/initramfs.ts'
import { killUnderLoad } from './linux-guest/kill-under-load.ts'
import { LinuxGuest } from './linux-guest/linux-guest.ts'
import { ServedDisk } from './linux-guest/served-disk.ts'
import { peerOrSkip } from './peer.ts'
import { missingQemu } from './qtest.ts'

const KILLS = 10
const TIMEOUT_MS = 300_000

const missing = missingQemu() ?? linuxGuestMissing() ?? nativeAbsent()

describe('a Linux guest in QEMU, on a disk served over vhost-user', () => {
  let folder = ''
  let built: Built | null = null
  let initramfs = ''

  beforeAll(() => {
    if (missing !== null) return
    folder = mkdtempSync(path.join(tmpdir(), 'paravane-linux-'))
    built = new Built()
    initramfs = makeInitramfs(linuxKernel() as LinuxKernel, folder)
  })

  afterAll(() => {
    built?.remove()
    if (folder !== '') rmSync(folder, { recursive: true, force: true })
  })

  it.for([
    { name: 'waiting for kicks', options: [] },
    { name: 'polling its ring', options: ['--polling'] },
  ])(
    'reads what is on it, and reads back what it writes, $name',
    { timeout: TIMEOUT_MS },
    async ({ name, options }, test) => {
      peerOrSkip(test, 'QEMU with a Linux guest', missing)
      if (built === null) return
      const file = drawnImage(folder, `${name}.img`, 1)
      const before = sumOf(file)
      await using served = new ServedDisk(built, folder, `file:${file}`, options)
      await served.start()
      await using guest = new LinuxGuest({
        ...{ kernel: linuxKernel() as LinuxKernel, initramfs, job: 'verify', lifetimeSeconds: 200 },
        sockets: [path.join(folder, served.socket)],
      })
      expect(Number(await guest.says('sectors '))).toBe(IMAGE_BYTES / 512)
      expect(await guest.says('sum ')).toBe(before)
      await guest.says('cached reads back')
      await guest.says('direct reads back')
      const after = await guest.says('final ')
      await guest.ended()
      expect(await served.stop(), served.said).toBe(0)
      expect(sumOf(file)).toBe(after)
      expect(after).not.toBe(before)
    },
  )

  it(`loses nothing that was answered when its back-end is killed ${KILLS} times under load`, {
    timeout: TIMEOUT_MS,
  }, async (test) => {
    peerOrSkip(test, 'QEMU with a Linux guest', missing)
    if (built === null) return
    const file = drawnImage(folder, 'killed.img', 2)
    const report = await killUnderLoad({
      ...{ built, folder, initramfs, image: file, kernel: linuxKernel() as LinuxKernel },
      ...{ kills: KILLS, seed: 1 },
    })
    expect(report.final).toBe(sumOf(file))
    expect(report.exitCode).toBe(0)
    expect(report.verifiedRounds).toBeGreaterThan(KILLS)
    console.info(`requests in flight at each kill: ${report.inFlight.join(' ')}`)
    expect(report.inFlight.filter((count) => count > 0)).toHaveLength(KILLS)
  })
})
