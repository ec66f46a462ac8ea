import type { Plain } from '../../protocol/platform.ts'
import type { Core } from './core.ts'
import { MsrFile } from './msr.ts'

const VERSION = 1

/** The numbers of a core that a VMCS does not hold, by the names they are saved under. */
const NUMBERS = [
  'rip',
  'rsp',
  'rflags',
  'blocking',
  'activity',
  'cr8',
  'trapReason',
  'trapQualification',
] as const
const FLAGS = ['inGuest', 'nmiPending', 'pinAsserted'] as const

/** The state of a processor between two calls of `run`, as plain data. */
export function saveCore(core: Core): Plain {
  const state: { [name: string]: Plain } = { version: VERSION }
  for (const name of NUMBERS) state[name] = core[name]
  for (const name of FLAGS) state[name] = core[name]
  state['attention'] = core.attention
  state['preemptionAt'] = Number.isFinite(core.preemptionAt) ? core.preemptionAt : null
  state['registers'] = [...core.registers.halves]
  state['msrs'] = core.msrs.save()
  state['vmx'] = core.vmx.save()
  return state
}

/** What is wrong with a state, or null. One that is refused changes nothing. */
export function loadCore(core: Core, state: Plain): string | null {
  if (typeof state !== 'object' || state === null) return 'processor state is not an object'
  const saved = state as { readonly [name: string]: Plain | undefined }
  if (saved['version'] !== VERSION)
    return `processor state has version ${String(saved['version'])}, not ${VERSION}`
  for (const name of [...NUMBERS, 'attention'] as const) {
    if (!Number.isSafeInteger(saved[name])) return `processor state: ${name} is not a number`
  }
  for (const name of FLAGS) {
    if (typeof saved[name] !== 'boolean') return `processor state: ${name} is not a boolean`
  }
  const due = saved['preemptionAt']
  if (due !== null && !Number.isSafeInteger(due)) return 'processor state: preemptionAt is not a number'
  const halves = saved['registers']
  const isHalf = (half: Plain): boolean =>
    Number.isInteger(half) && (half as number) >= 0 && (half as number) < 2 ** 32
  if (!Array.isArray(halves) || halves.length !== 32 || !halves.every(isHalf)) {
    return 'processor state: registers are not 32 halves of 32 bits'
  }
  const msrs = saved['msrs']
  if (typeof msrs !== 'object' || msrs === null) return 'processor state: MSRs are not an object'
  const values = msrs as { readonly [index: string]: unknown }
  const wrong = new MsrFile(core.capability).load(values) ?? core.vmx.load(saved['vmx'] ?? null)
  if (wrong !== null) return wrong
  core.msrs.load(values)
  for (const name of NUMBERS) core[name] = saved[name] as number
  for (const name of FLAGS) core[name] = saved[name] as boolean
  core.registers.halves.set(halves as number[])
  core.restore(saved['attention'] as number, due === null ? Number.POSITIVE_INFINITY : (due as number))
  return null
}
