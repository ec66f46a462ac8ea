import { driverBlockCases } from './driver-block-cases.ts'
import { driverChainCases } from './driver-chain-cases.ts'
import { driverFeatureCases } from './driver-feature-cases.ts'
import { driverNotificationCases } from './driver-notification-cases.ts'
import { driverRegisterCases } from './driver-register-cases.ts'
import type { DriverCase } from './driver-subject.ts'

/** What the specification asks of a block driver on virtio-mmio: run over any of them, yours included. */
export const driverCases: readonly DriverCase[] = [
  ...driverFeatureCases,
  ...driverRegisterCases,
  ...driverChainCases,
  ...driverNotificationCases,
  ...driverBlockCases,
]
