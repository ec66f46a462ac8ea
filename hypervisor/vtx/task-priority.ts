import { Register } from '../processor.ts'
import { VTPR } from './check-controls.ts'
import { ExitReason, Primary, Secondary } from './control.ts'
import type { Core } from './core.ts'
import { GENERAL_PROTECTION, raise } from './delivery.ts'
import { Field } from './field.ts'

/** MOV between CR8 and RAX with its REX prefix. */
export const MOV_CR8_LENGTH = 4
const CR8 = 8
const FROM_CR = 1 << 4

/** MOV CR8, RAX (SDM vol. 3, 26.1.3 and 30.3). False: it exited, or faulted. */
export function movToCr8(core: Core): boolean {
  if ((core.primary & Primary.CR8_LOAD) !== 0) {
    core.exit(ExitReason.CONTROL_REGISTER, CR8, MOV_CR8_LENGTH)
    return false
  }
  const priority = core.registers.get(Register.RAX)
  if (priority > 15) {
    raise(core, GENERAL_PROTECTION, 0)
    return false
  }
  if ((core.primary & Primary.TPR_SHADOW) === 0) core.cr8 = priority
  else {
    core.physical.write(core.vmcs.get(Field.virtualApicAddress) + VTPR, 4, priority * 16)
    taskPriorityWritten(core, priority)
  }
  core.retire(MOV_CR8_LENGTH)
  return true
}

/** TPR virtualization (30.1.2): VTPR holds the new priority. */
export function taskPriorityWritten(core: Core, priority: number): void {
  if ((core.secondary & Secondary.VIRTUAL_INTERRUPTS) !== 0) core.apic.taskPriorityChanged()
  else if (priority < (core.vmcs.low(Field.tprThreshold) & 15)) {
    core.requestTrap(ExitReason.TPR_BELOW_THRESHOLD, 0)
  }
}

/** MOV RAX, CR8. */
export function movFromCr8(core: Core): boolean {
  if ((core.primary & Primary.CR8_STORE) !== 0) {
    core.exit(ExitReason.CONTROL_REGISTER, CR8 | FROM_CR, MOV_CR8_LENGTH)
    return false
  }
  const shadow = (core.primary & Primary.TPR_SHADOW) !== 0
  const at = core.vmcs.get(Field.virtualApicAddress) + VTPR
  core.registers.set(Register.RAX, shadow ? core.physical.u8(at) >> 4 : core.cr8)
  core.retire(MOV_CR8_LENGTH)
  return true
}
