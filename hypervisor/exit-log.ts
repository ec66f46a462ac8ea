import type { Trace, TraceEvent } from '../protocol/trace.ts'
import { exitName } from './exit-name.ts'
import { ENTRY_FAILURE, ExitReason } from './vtx/control.ts'

type Exit = Extract<TraceEvent, { readonly name: 'exit' }>
type Register = Extract<TraceEvent, { readonly name: 'register' }>

const TYPES = [
  'interrupt',
  'reserved',
  'NMI',
  'exception',
  'software interrupt',
  'privileged software exception',
  'software exception',
  'other event',
] as const
const CR_ACCESSES = ['write', 'read', 'CLTS', 'LMSW'] as const

/** A trace as an engineer reads it: one line an event, `[  12.345 µs] exit 48 EPT violation gpa 0xd0000050 …`. */
export class ExitLog implements Trace {
  readonly on = true
  readonly #write: (line: string) => void
  readonly #now: () => number

  /** `write` takes each line, without its end; `now` is virtual time in microseconds. */
  constructor(write: (line: string) => void, now: () => number) {
    this.#write = write
    this.#now = now
  }

  emit(event: TraceEvent): void {
    this.#write(printEvent(this.#now(), event))
  }
}

/** One event of a trace and its time in microseconds, as a line. */
export function printEvent(us: number, event: TraceEvent): string {
  return `[${us.toFixed(3).padStart(12)} µs] ${textOf(event)}`
}

function textOf(event: TraceEvent): string {
  switch (event.name) {
    case 'exit':
      return exitText(event)
    case 'register':
      return registerText(event)
    case 'inject': {
      const again = event.again ? ' again' : ''
      return `inject${again} ${TYPES[(event.info >> 8) & 7]} vector ${hex(event.info & 0xff)}`
    }
    case 'deliver':
      return `deliver vector ${hex(event.vector)} without exit`
    case 'wake':
      return 'wake from HLT'
    case 'arrival':
      return `arrival ${event.number} ${event.source} ${JSON.stringify(event.value)}`
    default: {
      const { name, ...rest } = event
      const fields = Object.entries(rest).map(([key, value]) => `${key} ${String(value)}`)
      return [name, ...fields].join(' ')
    }
  }
}

function exitText({ reason, qualification, rip, gpa, width, value }: Exit): string {
  const basic = reason & 0xffff
  const head = `exit ${basic} ${exitName(basic)}`
  const failed = reason >= ENTRY_FAILURE ? ' (entry failed)' : ''
  const where = gpa === null ? '' : ` gpa ${hex(gpa)}`
  return `${head}${failed}${where}${operandText(basic, qualification, width, value)} rip ${hex(rip)}`
}

/** What the access was, as far as exit information and the decoded instruction tell it. */
function operandText(
  reason: number,
  qualification: number,
  width: number | null,
  value: number | null,
): string {
  if (reason === ExitReason.IO) {
    const string = (qualification & 16) === 0 ? '' : (qualification & 32) === 0 ? ' string' : ' rep string'
    return ` port ${hex(qualification >>> 16)}${string} ${(qualification & 8) === 0 ? 'out' : 'in'} ${(qualification & 7) + 1}`
  }
  if (reason === ExitReason.CONTROL_REGISTER) {
    return ` CR${qualification & 15} ${CR_ACCESSES[(qualification >> 4) & 3]}`
  }
  const access =
    width === null ? accessText(reason, qualification) : value === null ? ` read ${width}` : ` write ${width}`
  const stored = value === null ? '' : ` value ${hex(value)}`
  if (reason === ExitReason.EPT_MISCONFIGURATION) return access + stored
  if (reason === ExitReason.APIC_ACCESS) return ` offset ${hex(qualification & 0xfff)}${access}${stored}`
  return `${access}${stored}${qualification === 0 ? '' : ` qualification ${hex(qualification)}`}`
}

/** The access of an EPT violation that no load or store made: the delivery of an event, a string instruction. */
function accessText(reason: number, qualification: number): string {
  if (reason !== ExitReason.EPT_VIOLATION) return ''
  if ((qualification & 4) !== 0) return ' fetch'
  return (qualification & 2) !== 0 ? ' write' : ' read'
}

function registerText({ space, device, write, at, width, value }: Register): string {
  const where = space === 'port' ? `port ${hex(at)}` : hex(at)
  return `${device ?? 'nobody'} ${write ? 'write' : 'read'} ${width} at ${where} value ${hex(value)}`
}

function hex(value: number): string {
  return `0x${value.toString(16)}`
}
