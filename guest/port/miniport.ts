import type { Gpa, GuestMemory } from '../../protocol/memory.ts'
import type { AccessWidth } from '../../protocol/platform.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { Srb } from './srb.ts'

/** What FindAdapter says: `SP_RETURN_…`. */
export type FindAdapterResult = 'not-found' | 'found' | 'error' | 'bad-config'

/** A memory range or interrupt of the adapter, from START's translated resource list. */
export type PortResource =
  | { readonly kind: 'memory'; readonly start: Gpa; readonly lengthBytes: number }
  | { readonly kind: 'port'; readonly start: number; readonly lengthBytes: number }
  | { readonly kind: 'interrupt'; readonly line: number; readonly vector: number }

/** PORT_CONFIGURATION_INFORMATION: filled by FindAdapter, obeyed by the port from then on. */
export interface PortConfiguration {
  readonly resources: readonly PortResource[]
  maximumTransferLength: number
  /** Scatter elements of one request. */
  numberOfPhysicalBreaks: number
  numberOfBuses: number
  maximumNumberOfTargets: number
  maximumNumberOfLogicalUnits: number
  /** Buffers begin on a multiple of this plus one: 0 for any byte, 3 for 32-bit words. */
  alignmentMask: number
  cachesData: boolean
  /** Bytes of the miniport's own memory that go with each request. */
  srbExtensionBytes: number
}

/** STOR_SCATTER_GATHER_LIST: physical pieces of a request's data. The port's, valid until completion. */
export interface ScatterGatherList {
  count: number
  readonly addresses: Gpa[]
  readonly lengths: number[]
}

export type AdapterControl = 'stop-adapter' | 'restart-adapter'

/**
 * What a port driver offers its miniport, in Storport's terms. Each says at which IRQL it may be called;
 * the port bug-checks where Windows would.
 */
export interface PortServices {
  readonly memory: GuestMemory
  /** Virtual time in microseconds (StorPortQuerySystemTime). */
  now(): number
  /** Maps the adapter's registers. FindAdapter only; null for a range that is not in the resource list. */
  getDeviceBase(start: Gpa, lengthBytes: number): Gpa | null
  /** Zeroed, physically contiguous memory for rings; once, and in FindAdapter only. */
  getUncachedExtension(lengthBytes: number, alignment: number): Gpa | null
  readRegister(at: Gpa, width: AccessWidth): number
  writeRegister(at: Gpa, width: AccessWidth, value: number): void
  /** Pieces of the request's buffer; null for a request without data. BuildIo or StartIo. */
  getScatterGatherList(srb: Srb): ScatterGatherList | null
  /** Where the port keeps the request's data for commands that are not reads and writes. */
  getSystemAddress(srb: Srb): Gpa | null
  /** The one completion of a request, at DISPATCH_LEVEL or DIRQL, in any order. */
  requestComplete(srb: Srb): void
  /**
   * The device may still write this request's memory, and always will: pages that are never given back, but
   * counted as left. Before `requestComplete`.
   */
  leaveOnLoan(srb: Srb): void
  /** One timer for each adapter: calls `work` at DISPATCH_LEVEL after `us`; 0 cancels it. */
  requestTimer(us: number, work: () => void): void
  /** Queues the miniport's DPC. */
  issueDpc(): void
  /** Requests the port may have out at the logical unit at once. At or after its first INQUIRY. */
  setDeviceQueueDepth(path: number, target: number, lun: number, depth: number): void
  /** Holds all requests back until `resume`, or for so many seconds. */
  pause(seconds: number): void
  resume(): void
  /** Devices came or went: the port scans again. */
  busChangeDetected(): void
  /**
   * The unit's size or medium changed: what the class driver knows of it is old. At DISPATCH_LEVEL or below
   * (StorPortAsyncNotificationDetected; before Windows 8 nobody hears until the next command's sense data).
   */
  capacityChanged(path: number, target: number, lun: number): void
  logError(what: string): void
  violated(violation: Violation): void
}

/**
 * A storage miniport: HW_INITIALIZATION_DATA's routines. The port calls them at the IRQL and under the lock
 * that Storport does; none may wait. An SRB, and the object that stands for it, is the miniport's from
 * `buildIo` until `requestComplete`.
 */
export interface Miniport {
  readonly name: string
  /** PASSIVE_LEVEL. Reads the hardware and fills in the configuration; does not start it. */
  findAdapter(configuration: PortConfiguration): FindAdapterResult
  /** DIRQL, under the interrupt lock. */
  initialize(): boolean
  /** DISPATCH_LEVEL or lower, no lock: what needs no order. False: the miniport completes it itself. */
  buildIo(srb: Srb): boolean
  /** DISPATCH_LEVEL, under the StartIo lock. False: the port tries again later. */
  startIo(srb: Srb): boolean
  /** DIRQL, under the interrupt lock. True: the interrupt was this adapter's. */
  interrupt(): boolean
  /** DISPATCH_LEVEL: what `issueDpc` queued. */
  dpc(): void
  /**
   * DISPATCH_LEVEL: ends every request that is out on the bus, with `BUS_RESET`, before or after it returns.
   * False: the bus cannot be reset.
   */
  resetBus(path: number): boolean
  /** DIRQL. Stop: quiesce, and let go of all memory on loan. Restart: initialize without FindAdapter. */
  adapterControl(control: AdapterControl): boolean
}

/** DriverEntry of a miniport: makes one for each adapter. */
export type MakeMiniport = (services: PortServices) => Miniport
