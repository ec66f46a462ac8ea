import { holdEach } from './chains-at-work.ts'
import type { DriverCase, DriverScene } from './driver-subject.ts'
import { driverCase } from './driver-subject.ts'
import type { TakenChain } from './literal-blk-device.ts'
import { sameBytes } from './literal-blk-driver.ts'
import { INDIRECT, NEXT, R, WRITE } from './literal-registers.ts'
import { hold, holdSame } from './requirement-case.ts'

const LAYOUT = 'VIRTIO 1.2 section 2.7'
const FRAMING = 'VIRTIO 1.2 section 2.7.4.2'
const TABLES = 'VIRTIO 1.2 section 2.7.5.3.1'
const USED_BUFFER = 1

/** Fills the ring in two goes, with every other request answered in between. */
function holdUntouched(one: DriverScene): void {
  const { device, driver } = one.start()
  const fill = () => {
    for (let i = 0; i < device.size && driver.ask(i % 2 === 0 ? 'read' : 'write', i, 1); i++);
  }
  const takeAll = () => {
    const taken: { readonly chain: TakenChain; readonly bytes: Uint8Array }[] = []
    for (let chain = device.take(); chain !== null; chain = device.take()) {
      taken.push({ chain, bytes: device.descriptorsOf(chain) })
    }
    return taken
  }
  fill()
  const out = takeAll()
  hold(out.length > 1, 'the driver fills no ring')
  const kept = out.filter((_, index) => index % 2 === 1)
  for (const [index, { chain }] of out.entries()) if (index % 2 === 0) device.use(chain)
  device.setAvailableEvent(device.takenCount)
  device.interrupt(USED_BUFFER)
  one.deliver()
  fill()
  const later = takeAll()
  for (const { chain, bytes } of kept) {
    hold(
      sameBytes(bytes, device.descriptorsOf(chain)),
      `descriptors of head ${chain.head} change while it is out`,
    )
    const again = later.some(({ chain: { direct } }) => direct.some((index) => chain.direct.includes(index)))
    hold(!again, `a descriptor of head ${chain.head} is used again while it is out`)
  }
}

/** What a driver puts into a split ring. */
export const driverChainCases: readonly DriverCase[] = [
  driverCase({
    clause: 'split.driver.layout.1',
    section: LAYOUT,
    text: 'The areas of a queue are aligned to 16, 2 and 4 bytes',
    observed: 'reads the addresses',
    rule: 'split.area-backed',
    body(scene) {
      const { device } = scene().start()
      holdSame(device.area(R.queueDesc) % 16, 0, 'descriptor table modulo 16')
      holdSame(device.area(R.queueDriver) % 2, 0, 'available ring modulo 2')
      holdSame(device.area(R.queueDevice) % 4, 0, 'used ring modulo 4')
    },
  }),
  driverCase({
    clause: 'split.driver.framing.1',
    section: FRAMING,
    text: 'Readable buffers come before writable ones',
    observed: 'walks every chain of a driver at work',
    rule: 'split.readable-after-writable',
    body: (scene) =>
      holdEach(scene, ({ pieces, head }) => {
        const writable = pieces.map(({ flags }) => (flags & WRITE) !== 0)
        hold(
          !writable.slice(writable.indexOf(true) + 1).includes(false),
          `chain at head ${head} is out of order`,
        )
      }),
  }),
  driverCase({
    clause: 'split.driver.desc-table.1',
    section: 'VIRTIO 1.2 section 2.7.5.2',
    text: 'A chain is at most 2^32 bytes',
    observed: 'adds up every chain of a driver at work',
    rule: 'split.chain-bytes',
    body: (scene) =>
      holdEach(scene, (chain) => {
        const bytes = chain.pieces.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
        hold(bytes <= 2 ** 32, `chain at head ${chain.head} is ${bytes} bytes`)
      }),
  }),
  driverCase({
    clause: 'split.driver.indirect.1',
    section: TABLES,
    gate: ['!INDIRECT_DESC'],
    text: 'Without INDIRECT_DESC no descriptor names a table',
    observed: 'does not offer it, and walks every chain',
    rule: 'split.indirect-not-negotiated',
    body(scene) {
      for (const chain of scene().start().work().device.taken)
        holdSame(chain.tables.length, 0, 'tables in a chain')
    },
  }),
  driverCase({
    clause: 'split.driver.indirect.2',
    section: TABLES,
    gate: ['INDIRECT_DESC'],
    text: 'A table has no entry that names a table',
    observed: 'offers the feature, and walks every chain',
    rule: 'split.indirect-nested',
    body: (scene) =>
      holdEach(scene, ({ tables, head }) => {
        hold(!tables.some(({ nested }) => nested), `a table in a table, in the chain at head ${head}`)
      }),
  }),
  driverCase({
    clause: 'split.driver.indirect.3',
    section: TABLES,
    text: 'A chain is no longer than the queue',
    observed: 'counts the descriptors of every chain, with the smallest queues a request fits into',
    rule: 'split.chain-length',
    body(scene) {
      for (const queueMax of [4, 8]) {
        for (const features of [['SEG_MAX'], ['INDIRECT_DESC', 'SEG_MAX']] as const) {
          const { device } = scene({ queueMax, features }).start().work()
          for (const { pieces, head } of device.taken) {
            hold(
              pieces.length <= device.size,
              `chain at head ${head}: ${pieces.length}, queue: ${device.size}`,
            )
          }
        }
      }
    },
  }),
  driverCase({
    clause: 'split.driver.indirect.4',
    section: TABLES,
    gate: ['INDIRECT_DESC'],
    text: 'INDIRECT and NEXT are not set together',
    observed: 'offers the feature, and walks every chain',
    rule: 'split.indirect-with-next',
    body: (scene) =>
      holdEach(scene, ({ tables, head }) => {
        const both = tables.some(({ flags }) => (flags & (INDIRECT | NEXT)) === (INDIRECT | NEXT))
        hold(!both, `both are set in the chain at head ${head}`)
      }),
  }),
  driverCase({
    clause: 'split.driver.avail-ring.1',
    section: 'VIRTIO 1.2 section 2.7.6.1',
    text: 'The available index only grows, and never past what the queue holds',
    observed: 'reads it at every register access of a driver at work',
    rule: 'split.available-leap',
    body(scene) {
      const one = scene().start()
      const { device } = one
      let before = device.available.index
      device.after = () => {
        const { index } = device.available
        hold(
          ((index - before) & 0xffff) <= device.size,
          `the available index goes from ${before} to ${index}`,
        )
        before = index
      }
      one.work()
      hold(before > device.size, 'the ring has not been around')
    },
  }),
  driverCase({
    clause: 'core.driver.cleanup.1',
    section: 'VIRTIO 1.2 section 3.3.1',
    text: 'Descriptors of buffers that are out are not touched',
    observed: 'takes requests without answering, lets the driver fill the ring, and answers every other one',
    rule: 'split.head-in-flight',
    body(scene) {
      for (const features of [['SEG_MAX'], ['SEG_MAX', 'INDIRECT_DESC']] as const)
        holdUntouched(scene({ features }))
    },
  }),
  driverCase({
    clause: 'core.driver.cleanup.2',
    section: 'VIRTIO 1.2 section 3.3.1',
    text: 'Buffers that are out are taken back only once the device is reset',
    observed: 'answers nothing, has the driver let go, and takes five reads of status for the reset',
    body(scene) {
      const one = scene({ resetLooks: 5 }).start()
      const { device, driver } = one
      const before = driver.ended
      for (let i = 0; i < 3; i++) hold(driver.ask('read', i, 1), 'an empty ring has no room')
      device.after = () =>
        hold(device.status === 0 || driver.ended === before, 'a request ends before the reset does')
      driver.stop()
      device.after = null
      holdSame(device.status, 0, 'status after the driver has let go')
      holdSame(driver.ended - before, 3, 'requests that ended with the device')
    },
  }),
]
