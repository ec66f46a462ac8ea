import { IO_STACK_LOCATION, IRP } from './io-layout.ts'

/**
 * Where the fields lie that every step of a request touches, in 32-bit words of `KernelMemory.words`. The
 * records' declarations give the places; code on a request's own path reads them without a view in between.
 */

/** Type in the lower half, size in the upper. */
export const IRP_TYPE = 0
export const IRP_FLAGS = IRP.flags / 4
export const IRP_STATUS = (IRP.ioStatus as number) / 4
export const IRP_INFORMATION = IRP_STATUS + 2
/** Requestor mode, pending returned, stack count and current location, a byte each from the lowest. */
export const IRP_STATE = IRP.requestorMode / 4
/** Cancel in the lowest byte. */
export const IRP_CANCEL = IRP.cancel / 4
export const IRP_THREAD_LIST_ENTRY = (IRP.threadListEntry as number) / 4
export const IRP_ASSOCIATED_IRP = (IRP.associatedIrp as number) / 4
export const IRP_CANCEL_ROUTINE = (IRP.cancelRoutine as number) / 4
export const IRP_DRIVER_CONTEXT = (IRP.driverContext as number) / 4
export const IRP_MDL_ADDRESS = (IRP.mdlAddress as number) / 4
export const IRP_ORIGINAL_FILE_OBJECT = (IRP.originalFileObject as number) / 4
export const IRP_THREAD = (IRP.thread as number) / 4
export const IRP_USER_APC_CONTEXT = (IRP.userApcContext as number) / 4
export const IRP_USER_APC_ROUTINE = (IRP.userApcRoutine as number) / 4
export const IRP_USER_BUFFER = (IRP.userBuffer as number) / 4
export const IRP_USER_EVENT = (IRP.userEvent as number) / 4
export const IRP_USER_IOSB = (IRP.userIosb as number) / 4
export const IRP_CURRENT_STACK_LOCATION = IRP.currentStackLocation / 4
/** Where the locations begin: the one numbered n is `(n - 1) * LOCATION_WORDS` behind. */
export const IRP_WORDS = IRP.$size / 4

/** Major, minor, flags and control, a byte each from the lowest. */
export const LOCATION_HEAD = 0
export const LOCATION_ARGUMENT_1 = IO_STACK_LOCATION.argument1 / 4
export const LOCATION_ARGUMENT_2 = IO_STACK_LOCATION.argument2 / 4
export const LOCATION_ARGUMENT_3 = IO_STACK_LOCATION.argument3 / 4
export const LOCATION_ARGUMENT_4 = IO_STACK_LOCATION.argument4 / 4
export const LOCATION_DEVICE = IO_STACK_LOCATION.deviceObject / 4
export const LOCATION_FILE = IO_STACK_LOCATION.fileObject / 4
export const LOCATION_ROUTINE = IO_STACK_LOCATION.completionRoutine / 4
export const LOCATION_CONTEXT = IO_STACK_LOCATION.context / 4
export const LOCATION_WORDS = IO_STACK_LOCATION.$size / 4
/** Unit of Control in the head word. */
export const CONTROL_UNIT = 0x100_0000
/** All of the head word but Control. */
export const BUT_CONTROL = 0x00ff_ffff

const STATE_BYTES = [IRP.requestorMode, IRP.pendingReturned, IRP.stackCount, IRP.currentLocation]
const HEAD_BYTES = [
  IO_STACK_LOCATION.major,
  IO_STACK_LOCATION.minor,
  IO_STACK_LOCATION.flags,
  IO_STACK_LOCATION.control,
]
if (
  STATE_BYTES.some((at, index) => at !== IRP_STATE * 4 + index) ||
  HEAD_BYTES.some((at, index) => at !== index)
) {
  throw new Error('the words of a request are not where its declaration puts them')
}
