import type { PortWidth } from '../../protocol/processor.ts'
import { Register } from '../processor.ts'
import type { MemoryAccess } from './access.ts'
import { ExitReason, Primary } from './control.ts'
import type { Core } from './core.ts'
import { Field } from './field.ts'

const PORTS = 0x10000
const PORTS_PER_BITMAP = 0x8000

/** Bits of the qualification of an I/O instruction (SDM vol. 3, table 28-5); the port lies in bits 31:16. */
const IN = 1 << 3
const STRING = 1 << 4
const REP = 1 << 5
const IMMEDIATE = 1 << 6
const PORT = 0x10000

/** VM-exit instruction information of INS and OUTS: 64-bit addresses in bits 9:7, segment DS in 17:15. */
const ADDRESS_64 = 2 << 7
const SEGMENT_DS = 3 << 15

/** Whether an access to `width` ports exits (SDM vol. 3, 26.1.3). One that runs past 0xffff always does. */
export function portExits(core: Core, port: number, width: PortWidth): boolean {
  if ((core.primary & Primary.IO_BITMAPS) === 0) return (core.primary & Primary.UNCONDITIONAL_IO) !== 0
  if (port + width > PORTS) return true
  for (let at = port; at < port + width; at++) {
    const field = at < PORTS_PER_BITMAP ? Field.ioBitmapA : Field.ioBitmapB
    const byte = core.physical.u8(core.vmcs.get(field) + ((at % PORTS_PER_BITMAP) >>> 3))
    if (((byte >>> (at & 7)) & 1) === 1) return true
  }
  return false
}

/** What IN leaves in EAX: the low byte or word is replaced, 32 bits clear the upper half. */
export function setAccumulator(core: Core, width: PortWidth, value: number): void {
  const { halves } = core.registers
  if (width === 4) core.registers.setLow(Register.RAX, value)
  else {
    const mask = width === 1 ? 0xff : 0xffff
    halves[0] = ((halves[0] as number) & ~mask) | (value & mask)
  }
}

/**
 * IN or OUT. False: it exited instead. A port that does not exit has nothing behind it on this machine: reads
 * float high, writes are lost.
 */
export function portAccess(
  core: Core,
  isIn: boolean,
  port: number,
  width: PortWidth,
  immediate: boolean,
  lengthBytes: number,
): boolean {
  if (portExits(core, port, width)) {
    const kind = (isIn ? IN : 0) | (immediate ? IMMEDIATE : 0)
    core.exit(ExitReason.IO, port * PORT + (width - 1) + kind, lengthBytes)
    return false
  }
  if (isIn) setAccumulator(core, width, 2 ** (width * 8) - 1)
  core.retire(lengthBytes)
  return true
}

/**
 * One step of INS or OUTS, with or without REP, from DX and to [RDI] or from [RSI]. False: it exited, or is to
 * be executed again; RCX holds the count that is left. RFLAGS.DF is clear.
 */
export function portString(
  core: Core,
  access: MemoryAccess,
  isIn: boolean,
  width: PortWidth,
  repeats: boolean,
  lengthBytes: number,
): boolean {
  const { registers } = core
  const index = isIn ? Register.RDI : Register.RSI
  if (repeats && registers.get(Register.RCX) === 0) {
    core.retire(lengthBytes)
    return true
  }
  const port = registers.low(Register.RDX) % PORTS
  const at = registers.get(index)
  if (portExits(core, port, width)) {
    const kind = STRING | (isIn ? IN : 0) | (repeats ? REP : 0)
    core.vmcs.store(Field.exitInstructionInfo, ADDRESS_64 | (isIn ? 0 : SEGMENT_DS))
    core.vmcs.store(Field.guestLinearAddress, at)
    core.exit(ExitReason.IO, port * PORT + (width - 1) + kind, lengthBytes)
    return false
  }
  const item = new Uint8Array(width).fill(0xff)
  const { rip } = core
  if (isIn) access.store(at, item)
  else access.load(at, item)
  core.rip = rip
  registers.set(index, at + width)
  if (repeats) {
    registers.set(Register.RCX, registers.get(Register.RCX) - 1)
    if (registers.get(Register.RCX) !== 0) return false
  }
  core.retire(lengthBytes)
  return true
}
