import { VirtualClock } from '../../hypervisor/clock.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { BlkType } from '../../protocol/virtio/blk.ts'
import type { DriverMachine, DriverSubject, DriverUnderTest } from '../conformance/driver-subject.ts'
import { driverRig, TestCommand } from './driver-rig.ts'
import { ThinPort } from './thin-port.ts'

const SECTOR_BYTES = 512
/** Memory below is the driver's, memory from here on its users' buffers; commands take turns at them. */
const DATA = 0x8_0000
const DATA_BYTES = 0x1000
const DATA_COUNT = 64
const TURNS_MAX = 1_000_000

function memoryOf({ bytes }: DriverMachine): GuestMemory {
  return new GuestMemory([{ base: gpa(0), bytes }])
}

/** The block driver with no operating system above it. */
export const ourBareDriver: DriverSubject = {
  name: 'guest/virtio/blk.ts',
  open(machine): DriverUnderTest {
    const clock = new VirtualClock({ turnsMax: TURNS_MAX })
    const { driver } = driverRig(memoryOf(machine), clock, machine, { queueSize: 16 })
    let asked = 0
    let ended = 0
    return {
      judgesRange: false,
      get ended() {
        return ended
      },
      start() {
        driver.start(() => {})
        clock.drain()
      },
      interrupt() {
        driver.interrupt()
        clock.drain()
      },
      ask(op, sector, sectors) {
        const command = new TestCommand(
          { read: BlkType.IN, write: BlkType.OUT, flush: BlkType.FLUSH }[op],
          sector,
        )
        const at = gpa(DATA + DATA_BYTES * (asked % DATA_COUNT))
        if (op === 'read') command.data.writable(at, sectors * SECTOR_BYTES)
        if (op === 'write') command.data.readable(at, sectors * SECTOR_BYTES)
        command.onEnd = () => ended++
        if (!driver.submit(command)) return false
        asked++
        driver.kick()
        return true
      },
      stop() {
        driver.stop(() => {})
        clock.drain()
      },
    }
  },
}

/** The miniport, under the least port driver there is. */
export const ourMiniport: DriverSubject = {
  name: 'guest/virtio/blk-miniport.ts',
  open(machine): DriverUnderTest {
    const clock = new VirtualClock({ turnsMax: TURNS_MAX })
    const line = { onRise: null as (() => void) | null }
    const transport = {
      read: machine.read.bind(machine),
      write: machine.write.bind(machine),
    }
    const port = new ThinPort({ memory: memoryOf(machine), clock, line, transport })
    let asked = 0
    let refused = 0
    let found = false
    return {
      judgesRange: true,
      get ended() {
        return [...port.asked.values()].filter(({ completions }) => completions > 0).length - refused
      },
      start() {
        if (found) port.miniport.adapterControl('restart-adapter')
        else found = port.bringUp() === 'found'
        clock.drain()
      },
      interrupt() {
        port.miniport.interrupt()
        clock.drain()
      },
      ask(op, sector, sectors) {
        const at = DATA + DATA_BYTES * (asked % DATA_COUNT)
        const pieces = op === 'flush' ? [] : [{ at, lengthBytes: sectors * SECTOR_BYTES }]
        const cdb = [
          { read: 0x28, write: 0x2a, flush: 0x35 }[op],
          0,
          0,
          0,
          sector >>> 8,
          sector & 0xff,
          0,
          0,
          sectors,
          0,
        ]
        try {
          port.send({ cdb, pieces, write: op === 'write' })
        } catch {
          refused++
          return false
        }
        asked++
        clock.drain()
        return true
      },
      stop() {
        port.miniport.adapterControl('stop-adapter')
        clock.drain()
      },
    }
  },
}
