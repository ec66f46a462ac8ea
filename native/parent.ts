import { libc } from './libc.ts'
import { nativeAbsent } from './platform.ts'

const PR_SET_PDEATHSIG = 1
const SIGKILL = 9

/**
 * This process ends when its parent does, however that ends: nobody is left behind who serves what nobody watches.
 * Does nothing where the operating system cannot be called.
 */
export function endWithParent(parent: number): void {
  if (nativeAbsent() !== null) return
  libc().prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
  // It may have ended just before.
  if (process.ppid !== parent) process.kill(process.pid, 'SIGKILL')
}
