import type { Plain } from '../protocol/platform.ts'
import type { Machine } from './machine.ts'

const VERSION = 1

/** A machine between two turns, as plain data. */
export function saveMachine(machine: Machine): Plain {
  return {
    version: VERSION,
    profile: machine.profile.name,
    halted: machine.halted,
    stopped: machine.stopped,
    memory: machine.memory.save(),
    processor: machine.processor.save(),
    interrupts: machine.interrupts.save(),
    ioApic: machine.ioApic.save(),
    injection: machine.injection.save(),
    counters: machine.counters.save(),
    clock: machine.clock.save(),
    program: machine.program?.save?.() ?? null,
  }
}

/** Returns what is wrong with a state; parts of it may have been taken already. */
export function loadMachine(machine: Machine, saved: Plain): string | null {
  if (typeof saved !== 'object' || saved === null) return 'machine state is not an object'
  const state = saved as Record<string, Plain | undefined>
  const { version, profile, halted, stopped } = state
  if (version !== VERSION) return `machine state has version ${String(version)}, not ${VERSION}`
  if (profile !== machine.profile.name) {
    return `machine state is of a processor "${String(profile)}", not "${machine.profile.name}"`
  }
  if (typeof halted !== 'boolean') return 'machine state: halted is no boolean'
  if (stopped !== null && typeof stopped !== 'string') return 'machine state: stopped is no reason'
  const part = (name: string): Plain => state[name] ?? null
  // The EPT lies in memory, and the processor forgets its translations when it is loaded.
  const wrong =
    machine.memory.load(part('memory')) ??
    machine.processor.load(part('processor')) ??
    machine.interrupts.load(part('interrupts')) ??
    machine.ioApic.load(part('ioApic')) ??
    machine.injection.load(part('injection')) ??
    machine.counters.load(part('counters')) ??
    machine.clock.load(part('clock')) ??
    machine.program?.load?.(part('program')) ??
    null
  if (wrong !== null) return wrong
  machine.halted = halted
  machine.stopped = stopped
  return null
}
