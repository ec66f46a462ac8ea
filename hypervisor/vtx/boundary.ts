import { Activity, Blocking, ExitControl, ExitReason, INFO_VALID, Interruption, Pin } from './control.ts'
import { Attention, type Core } from './core.ts'
import { Field } from './field.ts'

const NMI_VECTOR = 2
const NO_VECTOR = -1

/**
 * What may happen between two instructions, in order of priority (SDM vol. 3, 26.2 and 7.9). Runs until
 * nothing is left that may, and for a halted processor until something has woken it or nothing can.
 */
export function boundary(core: Core): void {
  while (core.attention !== 0 && recognize(core)) {}
}

/** Lets the first thing happen that may. False when nothing did. */
function recognize(core: Core): boolean {
  const { attention, blocking } = core
  if ((attention & Attention.TRAP) !== 0) {
    core.trap()
    return true
  }
  if ((attention & Attention.TIMER) !== 0 && core.preemptionExpired) {
    core.exit(ExitReason.PREEMPTION_TIMER, 0, 0)
    return true
  }
  if ((attention & Attention.NMI_WINDOW) !== 0 && (blocking & (Blocking.NMI | Blocking.MOV_SS)) === 0) {
    core.exit(ExitReason.NMI_WINDOW, 0, 0)
    return true
  }
  if ((attention & Attention.NMI) !== 0 && takeNmi(core)) return true
  if ((attention & Attention.INTERRUPT_WINDOW) !== 0 && core.interruptible) {
    core.exit(ExitReason.INTERRUPT_WINDOW, 0, 0)
    return true
  }
  if ((attention & Attention.PIN) !== 0 && takeExternal(core)) return true
  return (attention & Attention.VIRTUAL) !== 0 && takeVirtual(core)
}

function takeNmi(core: Core): boolean {
  const exits = (core.pinControls & Pin.NMI) !== 0
  const isVirtual = (core.pinControls & Pin.VIRTUAL_NMIS) !== 0
  const blockers = Blocking.MOV_SS | (isVirtual ? 0 : Blocking.NMI)
  if ((core.blocking & blockers) !== 0) return false
  core.setNmi(false)
  const info = INFO_VALID + (Interruption.NMI << 8) + NMI_VECTOR
  if (!exits) {
    core.delivery.inject(info, 0, 0)
    return true
  }
  core.vmcs.store(Field.exitInterruptionInfo, info)
  core.exit(ExitReason.EXCEPTION_OR_NMI, 0, 0)
  return true
}

/** With external-interrupt exiting RFLAGS.IF does not matter; STI and MOV SS hold the pin back all the same. */
function takeExternal(core: Core): boolean {
  if ((core.pinControls & Pin.EXTERNAL_INTERRUPT) === 0) {
    if (!core.interruptible) return false
    core.delivery.inject(INFO_VALID + core.pin.acknowledge(), 0, 0)
    return true
  }
  if ((core.blocking & (Blocking.STI | Blocking.MOV_SS)) !== 0) return false
  const acknowledges = (core.vmcs.low(Field.exitControls) & ExitControl.ACKNOWLEDGE) !== 0
  core.vmcs.store(Field.exitInterruptionInfo, acknowledges ? INFO_VALID + core.pin.acknowledge() : 0)
  core.exit(ExitReason.EXTERNAL_INTERRUPT, 0, 0)
  return true
}

/** Virtual-interrupt delivery (SDM vol. 3, 30.2): without an exit, through the IDT. */
function takeVirtual(core: Core): boolean {
  if (!core.interruptible) return false
  const vector = core.apic.deliverVirtual()
  if (vector === NO_VECTOR) {
    core.attention &= ~Attention.VIRTUAL
    return false
  }
  core.delivery.inject(INFO_VALID + vector, 0, 0)
  return true
}

/** Whether the processor executes instructions. */
export function isActive(core: Core): boolean {
  return core.activity === Activity.ACTIVE
}
