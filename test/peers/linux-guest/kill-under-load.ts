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
  /** An image: what is served is a disk on it that answers slowly and out of order. */
  readonly image: string
  /** Kills that catch requests between being taken and being answered; others do not count. */
  readonly kills: number
  readonly seed: number
  readonly killed?: (kill: number, inFlight: number) => void
}

export interface KillReport {
  /** sha256 of the disk as the guest read it last. */
  readonly final: string
  /** Of the last back-end, which was not killed. */
  readonly exitCode: number | null
  readonly verifiedRounds: number
  /** Of each kill: requests that it caught between being taken and being answered, as the next back-end found them. */
  readonly inFlight: readonly number[]
  readonly requests: number
}

/** Marks that a round of the guest prints while it writes. */
const MARKS = 8
/** Slow, so that a kill finds requests taken and not answered; out of order, which only tracking survives. */
const SLOW = 'delay:ms=2,jitter=6'
/** Of kills for each that has to count: one that comes between two requests catches nothing. */
const TRIES = 2
const SECONDS_PER_KILL = 10

/**
 * Kills the back-end of a busy guest again and again, each time somewhere in a round of requests, and lets another
 * take up the connection. The guest judges: it says a round is verified when every block holds what was answered.
 *
 * @throws what the guest found wrong
 */
export async function killUnderLoad(setup: KillSetup): Promise<KillReport> {
  const { built, folder, kernel, initramfs, image, kills, seed } = setup
  const random = seededRandom(seed)
  await using served = new ServedDisk(built, folder, `file-async:${image} | ${SLOW}`)
  await served.start()
  await using guest = new LinuxGuest({
    ...{ kernel, initramfs, job: 'storm', lifetimeSeconds: 100 + kills * TRIES * SECONDS_PER_KILL },
    sockets: [path.join(folder, served.socket)],
  })
  let verified = await guest.says('verified ')
  const inFlight: number[] = []
  for (let counting = 0; counting < kills; ) {
    if (inFlight.length === kills * TRIES)
      throw new Error(`of ${inFlight.length} kills ${counting} caught requests`)
    guest.forget()
    for (let marks = random.below(MARKS); marks >= 0; marks--) await guest.says('mark ')
    await served.kill()
    const saidBefore = served.said.length
    await served.start()
    // What was said before the kill proves nothing about it; rounds go on, so nothing is missed.
    guest.forget()
    verified = await guest.says('verified ')
    const caught = Number(/(\d+) requests? in flight/.exec(served.said.slice(saidBefore))?.[1] ?? 0)
    inFlight.push(caught)
    if (caught > 0) counting++
    setup.killed?.(inFlight.length, caught)
  }
  guest.type('enough')
  const requests = Number(await guest.says('requests '))
  const final = await guest.says('final ')
  await guest.ended()
  return { final, requests, verifiedRounds: Number(verified), inFlight, exitCode: await served.stop() }
}
