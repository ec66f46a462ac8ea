import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import type { DiskSubject } from './disk-subject.ts'

/** Turns of one drain: far more than any case takes, so that an endless one is a failure and not a hang. */
const TURNS_MAX = 1_000_000

/**
 * A disk for the suite by its spec, on a clock of its own.
 *
 * @param spec its text, or what makes one anew for each disk, for disks that keep what is written to them.
 * @throws from `open`, with the spec's one line, when the disk cannot be had.
 */
export function specSubject(spec: string | (() => string), name?: string): DiskSubject {
  const clock = new VirtualClock({ turnsMax: TURNS_MAX })
  const next = typeof spec === 'string' ? () => spec : spec
  return {
    name: name ?? (typeof spec === 'string' ? spec : 'a disk'),
    async open(): Promise<DiskBackend> {
      const random = seededRandom(1).stream('disk0')
      const opened = await openDisk(next(), { clock, random, trace: NO_TRACE, path: 'disk0' })
      if (!opened.ok) throw new Error(opened.error)
      return opened.value
    },
    settle: () => clock.run(),
  }
}
