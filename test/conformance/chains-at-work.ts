import type { DriverScene } from './driver-subject.ts'
import type { LiteralBlkDevice, TakenChain } from './literal-blk-device.ts'
import { WRITE } from './literal-registers.ts'
import { hold } from './requirement-case.ts'

/** What a driver put into the ring at work, with tables and without. */
export function holdEach(
  scene: (personality?: { features: readonly ('INDIRECT_DESC' | 'FLUSH' | 'SEG_MAX')[] }) => DriverScene,
  check: (chain: TakenChain, device: LiteralBlkDevice) => void,
): void {
  for (const features of [
    ['FLUSH', 'SEG_MAX'],
    ['INDIRECT_DESC', 'FLUSH', 'SEG_MAX'],
  ] as const) {
    const { device } = scene({ features }).start().work()
    hold(device.taken.length > 0, 'the driver asks for nothing')
    for (const chain of device.taken) check(chain, device)
  }
}

/** Bytes after the header that the device may read, and before the status byte that it may write. */
export function dataBytes({ pieces }: TakenChain): { readonly out: number; readonly in: number } {
  let readable = 0
  let writable = 0
  for (const { lengthBytes, flags } of pieces) {
    if ((flags & WRITE) !== 0) writable += lengthBytes
    else readable += lengthBytes
  }
  return { out: readable - 16, in: writable - 1 }
}
