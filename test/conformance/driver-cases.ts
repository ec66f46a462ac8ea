import { driverStatusCases } from './driver-status-cases.ts'
import type { DriverCase } from './driver-subject.ts'

/** What the specification asks of a block driver on virtio-mmio: run over any of them, yours included. */
export const driverCases: readonly DriverCase[] = [...driverStatusCases]
