import type { Gpa } from '../../../protocol/memory.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Mdl } from '../../kernel/mdl.ts'
import type { ScatterGatherList } from '../miniport.ts'
import { Srb, SrbFunction } from '../srb.ts'
import type { LogicalUnit } from './logical-unit.ts'

/**
 * Where a request is: nobody's; waiting for its turn; the miniport's; back from it, and not ended yet. One that
 * was given up while the miniport still has it is `orphaned`: its IRP has ended, and its end meets nothing.
 */
export type PortRequestState = 'free' | 'queued' | 'out' | 'returned' | 'orphaned'

/**
 * One SRB on its way through the port, and the object a miniport knows it by. Kept and used again, so that a
 * request allocates nothing.
 */
export class PortRequest extends Srb {
  state: PortRequestState
  /** Null for a request of the port's own, which `ended` hears of. */
  irp: Irp | null
  unit: LogicalUnit | null
  ended: ((request: PortRequest) => void) | null
  /** Virtual time at which it is out of time. */
  deadlineUs: number
  /** From its first start on it is tried while it is busy, until then; 0 before that. */
  busyUntilUs: number
  /** The port's memory that goes with it, for the miniport. */
  readonly extension: Gpa
  /** The buffer's pages; kept while the address is the same. */
  mdl: Mdl | null
  readonly list: ScatterGatherList
  listMade: boolean
  /** A copy of a buffer whose pages do not lie side by side; 0 when there is none. */
  bounce: number
  /** As it was sent: a request that is tried again is asked for as much as before. */
  askedBytes: number
  /** The device may still write its pages: they are never given back. */
  onLoan: boolean
  /** There was no memory for its copy: however the miniport ended it, that is why. */
  memoryShort: boolean

  constructor(extension: Gpa) {
    super()
    this.state = 'free'
    this.irp = null
    this.unit = null
    this.ended = null
    this.deadlineUs = 0
    this.busyUntilUs = 0
    this.extension = extension
    this.mdl = null
    this.list = { count: 0, addresses: [], lengths: [] }
    this.listMade = false
    this.bounce = 0
    this.askedBytes = 0
    this.onLoan = false
    this.memoryShort = false
  }

  /** A reset goes out past a full queue: it is there to empty it. */
  get isReset(): boolean {
    const asked = this.function
    return (
      asked === SrbFunction.RESET_LOGICAL_UNIT ||
      asked === SrbFunction.RESET_DEVICE ||
      asked === SrbFunction.RESET_BUS
    )
  }
}
