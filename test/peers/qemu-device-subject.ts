import { gpa } from '../../protocol/memory.ts'
import type { DeviceSubject, DeviceUnderTest } from '../conformance/device-subject.ts'
import { QemuDisk } from './qemu-disk.ts'
import { Qmp } from './qmp.ts'

const FREE_BYTES = 0x1_0000
/** Register reads that QEMU gets to do what it should: each one lets its loop run. */
const PATIENCE = 2000
/** The same for what it should not do; far more than a request from the page cache takes. */
const IDLE = 150
const SECTOR = 512

/** QEMU's block device over qtest; `image` is at least 64 sectors. */
export function qemuDevice(image: string): DeviceSubject {
  return {
    name: 'QEMU over qtest',
    async open(disk): Promise<DeviceUnderTest> {
      const qemu = new QemuDisk({
        image,
        driveOptions: disk === 'read-only' ? ',readonly=on' : ',discard=unmap',
      })
      const { at: freeAt } = qemu.buffer(FREE_BYTES)
      let qmp: Qmp | null = null
      const window = (at: number, lengthBytes: number) => {
        const one = qemu.memory.window(gpa(at), lengthBytes, 1)
        if (one === null) throw new Error(`QEMU's guest has no memory at ${at}`)
        return one
      }
      return {
        freeAt,
        read: (offset, width) => qemu.read(gpa(qemu.registersAt + offset), width),
        write: (offset, width, value) => qemu.write(gpa(qemu.registersAt + offset), width, value),
        peek(at, lengthBytes) {
          const bytes = new Uint8Array(lengthBytes)
          window(at, lengthBytes).copyOut(0, bytes)
          return bytes
        },
        poke: (at, bytes) => window(at, bytes.length).copyIn(0, bytes),
        line: () => qemu.line(),
        run(done) {
          for (let left = PATIENCE; left > 0 && !done(); left--) qemu.read(qemu.registersAt, 4)
        },
        idle() {
          for (let left = IDLE; left > 0; left--) qemu.read(qemu.registersAt, 4)
        },
        resize(sectors) {
          qmp ??= new Qmp(qemu.qtest.monitor)
          qmp.ask('block_resize', { device: 'd0', size: sectors * SECTOR })
        },
        async close() {
          qmp?.close()
          await qemu[Symbol.asyncDispose]()
        },
      }
    },
  }
}
