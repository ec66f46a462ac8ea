import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseWhole } from '../../../host/disk/option.ts'
import { nativeAbsent } from '../../../native/platform.ts'
import { Built } from '../../bin/built.ts'
import { missingQemu } from '../qtest.ts'
import { drawnImage, sumOf } from './drawn-image.ts'
import { type LinuxKernel, linuxGuestMissing, linuxKernel, makeInitramfs } from './initramfs.ts'
import { killUnderLoad } from './kill-under-load.ts'

/**
 * Kills the back-end of a busy Linux guest: `npm run soak -- [kills] [seed]`, 50 by default that catch requests. Fails with what the
 * guest found wrong.
 */
const kills = parseWhole(process.argv[2] ?? '50')
const seed = parseWhole(process.argv[3] ?? '1')
if (kills === null || seed === null || kills === 0) {
  process.stderr.write('soak takes a number of kills and a seed\n')
  process.exit(2)
}
const missing = missingQemu() ?? linuxGuestMissing() ?? nativeAbsent()
if (missing !== null) {
  process.stderr.write(`soak needs a Linux guest in QEMU: ${missing} is missing\n`)
  process.exit(2)
}

const folder = mkdtempSync(path.join(tmpdir(), 'paravane-soak-'))
const built = new Built()
try {
  const kernel = linuxKernel() as LinuxKernel
  const initramfs = makeInitramfs(kernel, folder)
  const image = drawnImage(folder, 'killed.img', seed)
  const killed = (kill: number, inFlight: number): void => {
    const caught = `${inFlight} in flight, and every answered write is there`
    process.stdout.write(`kill ${kill}: ${caught}\n`)
  }
  const report = await killUnderLoad({ built, folder, kernel, initramfs, image, kills, seed, killed })
  const { requests, verifiedRounds, inFlight, final } = report
  const caught = inFlight.filter((count) => count > 0).length
  process.stdout.write(`${requests} requests, ${verifiedRounds} rounds verified, `)
  process.stdout.write(`${caught} of ${inFlight.length} kills caught requests in flight\n`)
  if (final !== sumOf(image)) throw new Error(`the guest read ${final}, the image is ${sumOf(image)}`)
} finally {
  built.remove()
  rmSync(folder, { recursive: true, force: true })
}
