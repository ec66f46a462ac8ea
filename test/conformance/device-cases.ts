import { deviceBlockCases } from './device-block-cases.ts'
import { deviceRingCases } from './device-ring-cases.ts'
import { deviceStatusCases } from './device-status-cases.ts'
import type { DeviceCase } from './device-subject.ts'

/** What the specification asks of a block device behind virtio-mmio: run over any of them, yours included. */
export const deviceCases: readonly DeviceCase[] = [
  ...deviceStatusCases,
  ...deviceRingCases,
  ...deviceBlockCases,
]
