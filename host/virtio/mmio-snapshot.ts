import { Status } from '../../protocol/virtio/status.ts'
import type { VirtioDevice } from './device.ts'
import type { MmioState, SavedMmio } from './mmio-state.ts'
import { fresh, freshMmioQueue, parseSavedMmio, placeOf } from './mmio-state.ts'
import { featuresRefused } from './negotiate.ts'

/**
 * The whole state of a transport, with what its device's queues have out.
 *
 * A reset under way is saved as done, and so is a queue that stops: no loan of the memory here is one of the
 * memory there, and neither lets a driver count on an answer.
 */
export function saveMmio(now: MmioState, device: VirtioDevice): SavedMmio {
  const state = now.resetting ? fresh(now.queues.length) : now
  const { driverFeatures, queues, resetting: _, ...registers } = state
  return {
    version: 1,
    ...registers,
    driverFeatures: driverFeatures.toString(16),
    queues: queues.map((queue, index) => {
      const { ready, stopping, resetting: _resetting, ...rest } = queue.stopping ? freshMmioQueue() : queue
      return { registers: rest, running: ready && !stopping ? device.queueState(index) : null }
    }),
    device: device.save(),
  }
}

/** A state that was taken, or what is wrong with what was saved. */
export type LoadedMmio =
  | { readonly ok: true; readonly state: MmioState }
  | { readonly ok: false; readonly error: string }

/**
 * Takes what was saved into a device nobody has touched yet. A snapshot is input like any other: it goes through
 * the checks a driver's writes do, and after a bad one the device is as it was.
 */
export function loadMmio(value: unknown, device: VirtioDevice): LoadedMmio {
  const parsed = parseSavedMmio(value, device.queueSizes.length)
  if (!parsed.ok) return { ok: false, error: parsed.error }
  const { saved } = parsed
  const features = BigInt(`0x${saved.driverFeatures}`)
  const refused = featuresRefused(features, device.offered, device.featureTable)
  if ((saved.status & Status.FEATURES_OK) !== 0 && refused !== null) return { ok: false, error: refused.rule }
  const state: MmioState = {
    status: saved.status,
    deviceFeaturesSel: saved.deviceFeaturesSel,
    driverFeaturesSel: saved.driverFeaturesSel,
    driverFeatures: features,
    queueSel: saved.queueSel,
    shmSel: saved.shmSel,
    interruptStatus: saved.interruptStatus,
    resetting: false,
    queues: saved.queues.map(({ registers }) => ({ ...freshMmioQueue(), ...registers })),
  }
  const before = device.save()
  const error = loadDevice(saved, state, device)
  if (error === null) return { ok: true, state }
  // Nothing has been taken yet, so this ends at once.
  device.reset(() => {})
  device.load(before)
  return { ok: false, error }
}

function loadDevice(saved: SavedMmio, state: MmioState, device: VirtioDevice): string | null {
  if ((saved.status & Status.FEATURES_OK) !== 0) device.accept(state.driverFeatures)
  const error = device.load(saved.device)
  if (error !== null) return error
  for (const [index, { running }] of saved.queues.entries()) {
    const queue = state.queues[index]
    if (running === null || queue === undefined) continue
    const violation = device.start(index, placeOf(queue), running)
    if (violation !== null) return violation.rule
    queue.ready = true
  }
  return null
}
