import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import { MmioTransport } from '../../host/virtio/mmio.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import type { Machine } from './machine.ts'
import { LINE, REGISTERS } from './storport-rig.ts'

/** The real block device, its registers on a machine's bus and its line at the controller. */
export function blkOn(machine: Machine, backend: DiskBackend, version: VirtioVersion = '1.3') {
  const violations: Violation[] = []
  const platform = {
    clock: machine.clock,
    random: seededRandom(1).stream('blk0'),
    trace: NO_TRACE,
    path: 'blk0',
  }
  const dma = new DmaSpace(machine.processor.memory)
  const device = new BlkDevice({ platform, dma, backend, version })
  const transport = new MmioTransport({
    platform,
    device,
    line: machine.processor.line(LINE),
    violated: (violation) => violations.push(violation),
  })
  machine.processor.map(REGISTERS, 0x200, transport)
  return { device, transport, violations }
}
