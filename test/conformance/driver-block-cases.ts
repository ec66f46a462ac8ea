import { dataBytes, holdEach } from './chains-at-work.ts'
import type { DriverCase, DriverScene } from './driver-subject.ts'
import { driverCase } from './driver-subject.ts'
import type { TakenChain } from './literal-blk-device.ts'
import { SECTOR, T_FLUSH, T_GET_ID, T_IN, T_OUT } from './literal-registers.ts'
import { hold, holdSame, Inapplicable } from './requirement-case.ts'

const OPERATION = 'VIRTIO 1.2 section 5.2.6.1'

/** Checks each flush of a driver at work. @throws Inapplicable when there is none. */
function holdFlush(scene: () => DriverScene, check: (chain: TakenChain) => void): void {
  const flushes = scene()
    .start()
    .work()
    .device.taken.filter(({ type }) => type === T_FLUSH)
  if (flushes.length === 0) throw new Inapplicable('the driver never flushes')
  for (const chain of flushes) check(chain)
}

/** Block requests as a driver makes them. */
export const driverBlockCases: readonly DriverCase[] = [
  driverCase({
    clause: 'blk.driver.operation.2',
    section: OPERATION,
    text: 'No request goes past the capacity',
    observed: 'has the driver asked for a read at the end, across it and behind it',
    rule: 'block.range',
    body(scene) {
      const one = scene({ sectors: 100 }).start()
      if (!one.driver.judgesRange) throw new Inapplicable('whoever asks this driver keeps to the capacity')
      for (const [sector, sectors] of [
        [98, 2],
        [99, 2],
        [100, 1],
        [200, 4],
      ] as const) {
        one.driver.ask('read', sector, sectors)
        one.settle()
      }
      for (const chain of one.device.taken.filter(({ type }) => type === T_IN)) {
        const end = chain.sector + dataBytes(chain).in / SECTOR
        hold(end <= 100, `a read from sector ${chain.sector} up to ${end} of 100`)
      }
    },
  }),
  driverCase({
    clause: 'blk.driver.operation.4',
    section: OPERATION,
    gate: ['FLUSH'],
    text: 'A flush has sector 0',
    observed: 'asks for one behind writes',
    rule: 'block.flush-sector',
    body: (scene) => holdFlush(scene, ({ sector }) => holdSame(sector, 0, 'sector of a flush')),
  }),
  driverCase({
    clause: 'blk.driver.operation.5',
    section: OPERATION,
    level: 'should',
    gate: ['FLUSH'],
    text: 'A flush has no data',
    observed: 'asks for one behind writes',
    rule: 'block.flush-sector',
    body: (scene) =>
      holdFlush(scene, (chain) => {
        const { in: writable, out } = dataBytes(chain)
        holdSame(writable + out, 0, 'data of a flush')
      }),
  }),
  driverCase({
    clause: 'blk.driver.operation.6',
    section: OPERATION,
    text: 'Data of a read or write is whole sectors',
    observed: 'adds up every read and write of a driver at work',
    rule: 'block.data-length',
    body: (scene) =>
      holdEach(scene, (chain) => {
        if (chain.type !== T_IN && chain.type !== T_OUT) return
        const { in: writable, out } = dataBytes(chain)
        const [bytes, other] = chain.type === T_IN ? [writable, out] : [out, writable]
        hold(bytes > 0 && bytes % SECTOR === 0, `${bytes} bytes of data in type ${chain.type}`)
        holdSame(other, 0, `data on the other side of type ${chain.type}`)
      }),
  }),
  driverCase({
    clause: 'blk.driver.operation.8',
    section: OPERATION,
    text: 'The room of a GET_ID is 20 bytes',
    observed: 'looks for one while the driver starts and works',
    rule: 'block.id-length',
    body(scene) {
      const ids = scene()
        .start()
        .work()
        .device.taken.filter(({ type }) => type === T_GET_ID)
      if (ids.length === 0) throw new Inapplicable('the driver does not ask for the serial number')
      for (const chain of ids) holdSame(dataBytes(chain).in, 20, 'room of a GET_ID')
    },
  }),
]
