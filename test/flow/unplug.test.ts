import { describe, expect, it } from 'vitest'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { DeviceView } from '../../guest/kernel/pnp/device-view.ts'
import { UserFile } from '../../guest/user.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { WholeStack } from './whole-stack.ts'

/** `name (driver) status`, indented by depth. */
function drawn(view: DeviceView | null, depth = 0): string[] {
  if (view === null) return []
  const line = `${'  '.repeat(depth)}${view.name} (${view.driver ?? '-'}) ${view.status}`
  return [line, ...view.children.flatMap((child) => drawn(child, depth + 1))]
}

describe('the device tree', () => {
  it('is found from the firmware’s list down to the disk, and started', async () => {
    for (const seed of [undefined, 1, 2, 3]) {
      const stack = new WholeStack(await opened('memory:size=1M'), seed === undefined ? {} : { seed })
      stack.run(() => stack.boot())
      const tree = drawn(stack.kernel.pnp.tree())
      expect(tree.slice(-3)).toEqual([
        '  Microsoft ACPI-Compliant System (ACPI) working',
        '    Paravane VirtIO block adapter (pvblk) working',
        '      Paravane VirtIO Disk SCSI Disk Device (disk) working',
      ])
    }
  })
})

describe('unplugging a disk under load', () => {
  it.each([true, false])(
    'ends every request once and takes the stack away, device obedient: %s',
    (obedient) => {
      for (const seed of [undefined, 1, 2, 3]) {
        const backend = new HeldDisk()
        const stack = new WholeStack(backend, seed === undefined ? {} : { seed })
        const { user, kernel } = stack
        const ends: string[] = []
        stack.run(function* () {
          // The partition table is read while the disk starts, and somebody has to answer.
          kernel.psCreateSystemThread(function* () {
            for (let i = 0; i < 60; i++) {
              yield* kernel.keDelayExecutionThread(1000)
              backend.end()
            }
          })
          yield* stack.boot()
          yield* kernel.keDelayExecutionThread(100_000)
          backend.obedient = obedient
          for (let i = 0; i < 6; i++) {
            kernel.psCreateSystemThread(function* () {
              const file = yield* user.open('\\\\.\\PhysicalDrive0')
              if (!(file instanceof UserFile)) throw new Error('not opened')
              const buffer = user.allocate(1024)
              const { status } =
                i % 2 === 0 ? yield* file.read(buffer, 1024, 0) : yield* file.write(buffer, 512, 512)
              ends.push(ntStatusName(status))
              yield* file.close()
            })
          }
          yield* kernel.keDelayExecutionThread(1000)
          expect(ends).toEqual([])
          stack.namespace.remove(stack.disk.acpi)
          yield* kernel.pnp.settle()
        })
        expect(ends.length).toBe(6)
        expect(ends).not.toContain('SUCCESS')
        expect(drawn(kernel.pnp.tree()).length).toBe(2)
        expect(kernel.parts.frames.retainedCount > 0).toBe(!obedient)
        expect(kernel.parts.frames.lockedCount).toBe(0)
        expect(kernel.parts.interrupts.connectedCount).toBe(0)
        const again = stack.run(function* () {
          const file = yield* user.open('\\\\.\\PhysicalDrive0')
          return file instanceof UserFile ? 'opened' : ntStatusName(file)
        })
        expect(again).toBe('OBJECT_NAME_NOT_FOUND')
      }
    },
  )
})
