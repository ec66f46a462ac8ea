import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { User, UserFile } from '../../guest/user.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import type { Machine } from './machine.ts'
import { StorportRig } from './storport-rig.ts'

/** Runs a body in a thread to its end, also over backends whose answers come from outside. */
export async function runOutside(machine: Machine, body: () => Waiting<unknown>): Promise<void> {
  const { kernel } = machine
  let done = false
  kernel.psCreateSystemThread(function* () {
    yield* body()
    done = true
  })
  machine.wake()
  while (!done) {
    machine.drain()
    if (kernel.bugCheck !== null) throw kernel.bugCheck
    if (!done) await new Promise((resolve) => setImmediate(resolve))
  }
}

/** The whole stack: application, class driver, port, miniport, ring, device, backend. */
export class WholeStack {
  readonly rig: StorportRig
  readonly user: User

  constructor(seed: number | undefined) {
    this.rig = new StorportRig(seed === undefined ? {} : { seed })
    this.user = new User(this.rig.kernel)
  }

  *start(): Waiting<void> {
    const { rig } = this
    const { kernel } = rig
    yield* rig.start(blkMiniport('1.3'))
    const driver = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
    if (typeof driver === 'number') throw new Error('not loaded')
    yield* settled(kernel.call(driver.addDevice)(driver as DriverObject, rig.pdo))
    const status = yield* this.pnp(0)
    if (status !== 'SUCCESS') throw new Error(`START: ${status}`)
  }

  *pnp(minor: number): Waiting<string> {
    const { kernel, pdo } = this.rig
    const top = kernel.ioGetAttachedDevice(pdo)
    const irp = kernel.ioAllocateIrp(top.stackSize)
    if (irp === null) throw new Error('no request')
    irp.next.major = Major.PNP
    irp.next.minor = minor
    let ended = false
    kernel.ioSetCompletionRoutine(
      irp,
      kernel.routine(() => {
        ended = true
        return NtStatus.MORE_PROCESSING_REQUIRED
      }),
    )
    yield* settled(kernel.ioCallDriver(top, irp))
    while (!ended) yield* kernel.keDelayExecutionThread(1000)
    const { status } = irp
    kernel.ioFreeIrp(irp)
    return ntStatusName(status)
  }

  *open(overlapped = false, writeThrough = false): Waiting<UserFile> {
    const file = yield* this.user.open('\\\\.\\PhysicalDrive0', { overlapped, writeThrough })
    if (!(file instanceof UserFile)) throw new Error(ntStatusName(file))
    return file
  }

  run(body: () => Waiting<unknown>): Promise<void> {
    return runOutside(this.rig.machine, body)
  }

  finish(): Record<string, number> {
    const { parts } = this.rig.kernel
    this.user.release()
    parts.irps.trim()
    return {
      locked: parts.frames.lockedCount,
      irps: parts.irps.liveCount,
      files: parts.files.count,
      handles: this.rig.kernel.nt.handles.count,
      buffers: parts.space.userBufferCount,
    }
  }
}

export const CLEAN = { locked: 0, irps: 0, files: 0, handles: 0, buffers: 0 }
