import { expect, test } from 'vitest'
import { RegisterCounter } from '../../bench/register-counter.ts'
import type { AccessWidth, RegisterDevice } from '../../protocol/platform.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'

class Recorder implements RegisterDevice {
  readonly seen: string[] = []

  read(offset: number, width: AccessWidth): number {
    this.seen.push(`read ${offset} ${width}`)
    return 7
  }

  write(offset: number, width: AccessWidth, value: number): void {
    this.seen.push(`write ${offset} ${width} ${value}`)
  }
}

test('the register counter tells doorbells from interrupt status from the rest, and passes all on', () => {
  const device = new Recorder()
  const counter = new RegisterCounter(device)
  counter.write(Mmio.QueueNotify, 4, 0)
  counter.write(Mmio.QueueNotify, 4, 1)
  expect(counter.read(Mmio.InterruptStatus, 4)).toBe(7)
  counter.write(Mmio.InterruptACK, 4, 1)
  counter.read(Mmio.Status, 4)
  counter.write(Mmio.Status, 4, 3)
  counter.read(Mmio.QueueNotify, 4)
  expect(counter.counts).toEqual({ doorbells: 2, interruptStatus: 2, others: 3 })
  expect(device.seen).toHaveLength(7)
})
