import { DISK_MEASUREMENTS } from './disk.ts'
import { EXIT } from './exit.ts'
import { IRP } from './irp.ts'
import type { Measurement } from './measure.ts'
import { PEER_MEASUREMENTS } from './peers.ts'
import { RING_MEASUREMENTS } from './ring.ts'
import { STACK_MEASUREMENTS } from './stack.ts'

/** Every measurement, in the order they are run. */
export const MEASUREMENTS: readonly Measurement[] = [
  ...RING_MEASUREMENTS,
  ...DISK_MEASUREMENTS,
  EXIT,
  IRP,
  ...STACK_MEASUREMENTS,
]

/** Everything that can be measured; those beside daemons of others need them installed. */
export const ALL_MEASUREMENTS: readonly Measurement[] = [...MEASUREMENTS, ...PEER_MEASUREMENTS]
