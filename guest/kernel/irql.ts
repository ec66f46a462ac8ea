/** Interrupt request levels of x64. A level is the processor's task priority (CR8), number for number. */
export const Irql = {
  PASSIVE: 0,
  APC: 1,
  DISPATCH: 2,
  /** The lowest level of a device; 11 is the highest. */
  DEVICE: 3,
  DEVICE_MAX: 11,
  CLOCK: 13,
  IPI: 14,
  HIGH: 15,
} as const

/** A level from 0 (PASSIVE) to 15 (HIGH). */
export type Irql = number

export function irqlName(irql: Irql): string {
  switch (irql) {
    case Irql.PASSIVE:
      return 'PASSIVE_LEVEL'
    case Irql.APC:
      return 'APC_LEVEL'
    case Irql.DISPATCH:
      return 'DISPATCH_LEVEL'
    case Irql.CLOCK:
      return 'CLOCK_LEVEL'
    case Irql.HIGH:
      return 'HIGH_LEVEL'
    default:
      return `IRQL ${irql}`
  }
}
