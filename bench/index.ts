export { Bench, type BenchOptions, createBench, type RunOptions } from './bench.ts'
export { RegisterBus } from './bus.ts'
export {
  BadDescription,
  type BenchDescription,
  type CheckedDescription,
  type CheckedDisk,
  checkDescription,
  type DiskDescription,
  VERIFY_MODES,
  type VerifyMode,
} from './description.ts'
export { type DeviceTreeDescription, type DeviceTreeReport, deviceTree } from './device-tree.ts'
export { DiskAccess, DiskRequestFailed } from './disk-access.ts'
export type { Progress } from './disk-run.ts'
export { BareGuest, GuestMemoryExhausted } from './guest.ts'
export { LevelLine } from './interrupt-line.ts'
export type { Problem } from './problem.ts'
export { SeededRandom, seededRandom } from './random.ts'
export { RegisterCounter, type RegisterCounts } from './register-counter.ts'
export type { BenchReport, DiskReport, DiskTiming, Timing, ViolationReport } from './report.ts'
export { type TraceHeader, TraceLines } from './trace-lines.ts'
export { VERSION } from './version.ts'
export { type MachineDisk, WindowsMachine, type WindowsMachineOptions } from './windows-machine.ts'
