import path from 'node:path'
import { seededRandom } from '../../../bench/random.ts'
import type { Built } from '../../bin/built.ts'
import type { LinuxKernel } from './initramfs.ts'
import { LinuxGuest } from './linux-guest.ts'
import { ServedDisk } from './served-disk.ts'

export interface KillSetup {
  readonly built: Built
  readonly folder: string
  readonly kernel: LinuxKernel
  readonly initramfs: string
  /** The disk that is served. Layers that answer out of order need the tracking of what is in flight. */
  readonly spec: string
  readonly kills: number
  readonly seed: number
  readonly killed?: (kill: number) => void
}

export interface KillReport {
  /** sha256 of the disk as the guest read it last. */
  readonly final: string
  /** Of the last back-end, which was not killed. */
  readonly exitCode: number | null
  readonly verifiedRounds: number
  readonly requests: number
}

/** Marks that a round of the guest prints while it writes. */
const MARKS = 8
const SECONDS_PER_KILL = 10

/**
 * Kills the back-end of a busy guest again and again, each time somewhere in a round of requests, and lets another
 * take up the connection. The guest judges: it says a round is verified when every block holds what was answered.
 *
 * @throws what the guest found wrong
 */
export async function killUnderLoad(setup: KillSetup): Promise<KillReport> {
  const { built, folder, kernel, initramfs, spec, kills, seed } = setup
  const random = seededRandom(seed)
  await using served = new ServedDisk(built, folder, spec)
  await served.start()
  await using guest = new LinuxGuest({
    ...{ kernel, initramfs, job: 'storm', lifetimeSeconds: 100 + kills * SECONDS_PER_KILL },
    sockets: [path.join(folder, served.socket)],
  })
  let verified = await guest.says('verified ')
  for (let kill = 0; kill < kills; kill++) {
    guest.forget()
    for (let marks = random.below(MARKS); marks >= 0; marks--) await guest.says('mark ')
    await served.kill()
    await served.start()
    // What was said before the kill proves nothing about it; rounds go on, so nothing is missed.
    guest.forget()
    verified = await guest.says('verified ')
    setup.killed?.(kill)
  }
  guest.type('enough')
  const requests = Number(await guest.says('requests '))
  const final = await guest.says('final ')
  await guest.ended()
  return { final, requests, verifiedRounds: Number(verified), exitCode: await served.stop() }
}
