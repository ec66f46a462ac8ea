import { array, bytes, le16, le32, le64, nested, struct, tail, u8 } from '../../protocol/layout.ts'

/**
 * Structures that other records are made of, and the dispatcher's objects. Offsets are those of x64; a pointer
 * is 64 bits wide and a Number (the guest's addresses stay below 2^53).
 */

export const LIST_ENTRY = struct('LIST_ENTRY', 'ntdef.h', 16, {
  flink: le64('next entry, or the head'),
  blink: le64('previous entry, or the head'),
})

export const UNICODE_STRING = struct('UNICODE_STRING', 'ntdef.h', 16, {
  lengthBytes: le16('bytes in use'),
  maximumLengthBytes: le16('bytes there'),
  gap: bytes(4, 'padding', { reserved: true }),
  buffer: le64('UTF-16'),
})

export const OBJECT_HEADER = struct('OBJECT_HEADER', 'ntosp.h', 0x30, {
  pointerCount: le64('references'),
  handleCount: le64('open handles'),
  lock: le64('the manager’s'),
  typeIndex: u8('kind of object'),
  gap: bytes(7, 'padding'),
  createInfo: le64('the manager’s'),
  securityDescriptor: le64('unused here'),
})

/** First byte of a dispatcher object. */
export const DispatcherType = {
  NOTIFICATION_EVENT: 0,
  SYNCHRONIZATION_EVENT: 1,
  MUTANT: 2,
  QUEUE: 4,
  SEMAPHORE: 5,
  THREAD: 6,
  NOTIFICATION_TIMER: 8,
  SYNCHRONIZATION_TIMER: 9,
} as const

export const DISPATCHER_HEADER = struct('DISPATCHER_HEADER', 'wdm.h', 24, {
  type: u8('kind of object', { names: DispatcherType }),
  absolute: u8('timer: due time is absolute'),
  size: u8('of the object, in 32-bit words'),
  inserted: u8('timer: in the timer queue'),
  signalState: le32('greater than zero: signalled (signed)'),
  waitListHead: nested(LIST_ENTRY, 'wait blocks'),
})

export const KEVENT = struct('KEVENT', 'wdm.h', 24, {
  header: nested(DISPATCHER_HEADER, 'dispatcher header'),
})

export const KSEMAPHORE = struct('KSEMAPHORE', 'wdm.h', 32, {
  header: nested(DISPATCHER_HEADER, 'dispatcher header'),
  limit: le32('greatest count (signed)'),
  gap: bytes(4, 'padding'),
})

export const KMUTANT = struct('KMUTANT', 'wdm.h', 56, {
  header: nested(DISPATCHER_HEADER, 'dispatcher header; the state counts down with each acquisition'),
  mutantListEntry: nested(LIST_ENTRY, 'in the owner’s list'),
  ownerThread: le64('KTHREAD, or 0'),
  abandoned: u8('its owner ended without releasing it'),
  apcDisable: u8('kernel APCs wait while it is held'),
  gap: bytes(6, 'padding'),
})

export const KTIMER = struct('KTIMER', 'wdm.h (6.1)', 64, {
  header: nested(DISPATCHER_HEADER, 'dispatcher header'),
  dueTime: le64('when, in microseconds since power-on'),
  timerListEntry: nested(LIST_ENTRY, 'in the timer queue'),
  dpc: le64('KDPC, or 0'),
  processor: le32('unused here'),
  periodMs: le32('0: once'),
})

export const KDPC = struct('KDPC', 'wdm.h', 64, {
  type: u8('19: a DPC', { names: { DPC: 19 } }),
  importance: u8('0 low, 1 medium, 2 high'),
  number: le16('target processor'),
  gap: bytes(4, 'padding'),
  dpcListEntry: nested(LIST_ENTRY, 'in the DPC queue'),
  deferredRoutine: le64('routine'),
  deferredContext: le64('for the routine'),
  systemArgument1: le64('from KeInsertQueueDpc'),
  systemArgument2: le64('from KeInsertQueueDpc'),
  dpcData: le64('not 0: queued'),
})

export const KAPC = struct('KAPC', 'wdm.h', 0x58, {
  type: u8('18: an APC', { names: { APC: 18 } }),
  spare: u8('unused'),
  size: u8('of this'),
  gap: bytes(5, 'unused'),
  thread: le64('KTHREAD'),
  apcListEntry: nested(LIST_ENTRY, 'in the thread’s queue'),
  kernelRoutine: le64('runs at APC level'),
  rundownRoutine: le64('runs when the thread ends first'),
  normalRoutine: le64('runs at PASSIVE level; 0: a special kernel APC'),
  normalContext: le64('for the routine'),
  systemArgument1: le64('for the routine'),
  systemArgument2: le64('for the routine'),
  apcStateIndex: u8('environment'),
  apcMode: u8('0 kernel, 1 user'),
  inserted: u8('queued'),
  tailGap: bytes(5, 'padding'),
})

export const KWAIT_BLOCK = struct('KWAIT_BLOCK', 'wdm.h (5.2)', 48, {
  waitListEntry: nested(LIST_ENTRY, 'in the object’s list'),
  thread: le64('KTHREAD that waits'),
  object: le64('what it waits for'),
  nextWaitBlock: le64('of the same wait'),
  waitKey: le16('status when this one ends the wait'),
  waitType: le16('0 all, 1 any', { names: { ALL: 0, ANY: 1 } }),
  gap: bytes(4, 'padding'),
})

export const KDEVICE_QUEUE = struct('KDEVICE_QUEUE', 'wdm.h', 40, {
  type: le16('20: a device queue', { names: { DEVICE_QUEUE: 20 } }),
  size: le16('of this'),
  gap: bytes(4, 'padding'),
  deviceListHead: nested(LIST_ENTRY, 'entries'),
  lock: le64('spin lock'),
  busy: u8('a request is being served'),
  tailGap: bytes(7, 'padding'),
})

export const KDEVICE_QUEUE_ENTRY = struct('KDEVICE_QUEUE_ENTRY', 'wdm.h', 24, {
  deviceListEntry: nested(LIST_ENTRY, 'in the queue'),
  sortKey: le32('order of a keyed queue'),
  inserted: u8('queued'),
  gap: bytes(3, 'padding'),
})

export const IO_STATUS_BLOCK = struct('IO_STATUS_BLOCK', 'wdm.h', 16, {
  status: le32('NTSTATUS'),
  gap: bytes(4, 'upper half of the pointer it shares its place with'),
  information: le64('bytes moved, or what the request defines'),
})

export const WORK_QUEUE_ITEM = struct('WORK_QUEUE_ITEM', 'wdm.h', 32, {
  list: nested(LIST_ENTRY, 'in the work queue'),
  workerRoutine: le64('runs at PASSIVE level in a system thread'),
  parameter: le64('for the routine'),
})

export const IO_WORKITEM = struct('IO_WORKITEM', 'opaque; iomgr', 56, {
  item: nested(WORK_QUEUE_ITEM, 'as queued'),
  routine: le64('the driver’s routine'),
  ioObject: le64('device object, referenced until the routine returns'),
  context: le64('for the routine'),
})

export const IO_REMOVE_LOCK = struct('IO_REMOVE_LOCK_COMMON_BLOCK', 'wdm.h', 32, {
  removed: u8('removal has started'),
  gap: bytes(3, 'reserved'),
  ioCount: le32('holders, one of them the lock itself'),
  removeEvent: nested(KEVENT, 'set when the last holder lets go'),
})

export const IO_CSQ = struct('IO_CSQ', 'wdm.h', 64, {
  type: le32('1: plain, 3: with an insert routine that may refuse', { names: { CSQ: 1, CSQ_EX: 3 } }),
  gap: bytes(4, 'padding'),
  insertIrp: le64('routine'),
  removeIrp: le64('routine'),
  peekNextIrp: le64('routine'),
  acquireLock: le64('routine'),
  releaseLock: le64('routine'),
  completeCanceledIrp: le64('routine'),
  reservePointer: le64('the manager’s'),
})

export const IO_CSQ_IRP_CONTEXT = struct('IO_CSQ_IRP_CONTEXT', 'wdm.h', 24, {
  type: le32('2: a context', { names: { IRP_CONTEXT: 2 } }),
  gap: bytes(4, 'padding'),
  irp: le64('the request, or 0 once it left the queue'),
  csq: le64('the queue'),
})

/** What drivers may hold of a thread: its address, and the list of the requests it issued. */
export const ETHREAD = struct('ETHREAD', 'opaque; as far as this kernel uses it', 0x120, {
  header: nested(DISPATCHER_HEADER, 'signalled when the thread has ended'),
  irpList: nested(LIST_ENTRY, 'IRP.ThreadListEntry of threaded requests'),
  mutantListHead: nested(LIST_ENTRY, 'mutexes held'),
  waitBlocks: array(KWAIT_BLOCK, 4, 'three objects and the timer'),
  threadId: le64('number'),
  kernelApcList: nested(LIST_ENTRY, 'kernel APCs that wait'),
  userApcList: nested(LIST_ENTRY, 'user APCs that wait'),
})

export const MDL = struct('MDL', 'wdm.h', 48, {
  next: le64('next MDL of the chain'),
  size: le16('bytes of this with its page array'),
  mdlFlags: le16('flags'),
  gap: bytes(4, 'padding'),
  process: le64('whose pages; 0 for the kernel’s'),
  mappedSystemVa: le64('where it is mapped'),
  startVa: le64('page of the first byte'),
  byteCount: le32('length'),
  byteOffset: le32('of the first byte in its page'),
  pages: tail(le64('page frame number'), 'one for each page'),
})
