import { VirtualClock } from '../../hypervisor/clock.ts'
import type { DeviceSubject, DeviceUnderTest } from '../conformance/device-subject.ts'
import { TestIo } from '../conformance/disk-subject.ts'
import { BlkRig } from './blk-rig.ts'
import { opened } from './disk-subjects.ts'

const FREE_AT = 0x4000
const TURNS_MAX = 100_000

/** Our block device in this process, over a disk that takes its time, so that requests are under way. */
export const ourDevice: DeviceSubject = {
  name: 'host/virtio/blk.ts',
  async open(disk): Promise<DeviceUnderTest> {
    const clock = new VirtualClock({ turnsMax: TURNS_MAX })
    const readonly = disk === 'read-only' ? ',readonly' : ''
    const backend = await opened(`memory:size=64K${readonly} | delay:us=10`, clock)
    const rig = new BlkRig({ backend, clock })
    return {
      freeAt: FREE_AT,
      read: (offset, width) => rig.read(offset, width),
      write: (offset, width, value) => rig.write(offset, value, width),
      peek: (at, lengthBytes) => rig.bytes.slice(at, at + lengthBytes),
      poke: (at, bytes) => rig.bytes.set(bytes, at),
      line: () => rig.line.level,
      run: () => rig.drain(),
      idle: () => rig.drain(),
      resize(sectors) {
        backend.submit(new TestIo('resize', 0, sectors * 512, []))
        rig.drain()
      },
      async close() {},
    }
  },
}
