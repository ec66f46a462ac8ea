export { Bench, type BenchOptions, createBench, type RunOptions } from './bench.ts'
export {
  BadDescription,
  type BenchDescription,
  type CheckedDescription,
  type CheckedDisk,
  checkDescription,
  type DiskDescription,
  PROFILE_NAMES,
  type ProfileName,
  VERIFY_MODES,
  type VerifyMode,
  WINDOWS_NAMES,
  type WindowsName,
} from './description.ts'
export { type DeviceTreeReport, deviceTree } from './device-tree.ts'
export { DiskAccess, DiskRequestFailed } from './disk-access.ts'
export type { Progress } from './disk-run.ts'
export type { LayoutReport, PartitionReport } from './drive-facts.ts'
export type { ExitReport } from './exit-tally.ts'
export type { DiskFault, FaultEffect } from './fault-disk.ts'
export type { Problem } from './problem.ts'
export { SeededRandom, seededRandom } from './random.ts'
export { BadTrace, type RecordedTrace, readTrace } from './recorded-trace.ts'
export { RegisterCounter, type RegisterCounts } from './register-counter.ts'
export { type Difference, type ReplayResult, replayTrace } from './replay.ts'
export type {
  BenchReport,
  DiskReport,
  DiskTiming,
  PriceReport,
  Timing,
  ViolationReport,
} from './report.ts'
export {
  createServer,
  DiskServer,
  type ServeDescription,
  type ServeListener,
  type ServeOptions,
} from './serve.ts'
export { type TraceHeader, TraceLines } from './trace-lines.ts'
export { VERSION } from './version.ts'
export { type MachineDisk, WindowsMachine, type WindowsMachineOptions } from './windows-machine.ts'
