import { BugCode, keBugCheckEx } from '../bug-check.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus, ntSuccess } from '../nt-status.ts'
import { PoolType, poolTag } from '../pool.ts'
import type { Waiting } from '../thread.ts'
import type { WindowsVersion } from '../version.ts'
import { isBrokenId, isDeviceId, isHardwareId, isInstanceId, uniqueInstance } from './device-id.ts'
import type { DeviceNode } from './device-node.ts'
import { PnpFatal } from './pnp-fatal.ts'
import { CapabilityFlag, DEVICE_CAPABILITIES, PNP_BUS_INFORMATION } from './pnp-layout.ts'
import { BusQueryId, DeviceText, LANGUAGE, PnpMinor } from './pnp-minor.ts'
import type { PnpRequests } from './pnp-request.ts'
import { readText, readTextList } from './pool-text.ts'
import { Problem } from './problem.ts'

const CAPABILITIES_TAG = poolTag('PpCp')

interface Capabilities {
  readonly flags: number
  readonly address: number
}

/** What the PnP manager asks a new PDO before it looks for a driver. */
export class Identification {
  readonly #parts: KernelParts
  readonly #version: WindowsVersion
  readonly #requests: PnpRequests
  /** A query was not answered for want of memory: nothing is known from it, not even that there is no answer. */
  #short: boolean

  constructor(parts: KernelParts, version: WindowsVersion, requests: PnpRequests) {
    this.#parts = parts
    this.#version = version
    this.#requests = requests
    this.#short = false
  }

  /** Fills in the node's identity and path. Answers the problem that keeps it from having one. */
  *identify(node: DeviceNode): Waiting<Problem | null> {
    this.#short = false
    const deviceId = yield* this.#id(node, BusQueryId.DEVICE_ID)
    const capabilities = yield* this.capabilities(node)
    const instanceId = yield* this.#id(node, BusQueryId.INSTANCE_ID)
    const hardwareIds = yield* this.#ids(node, BusQueryId.HARDWARE_IDS)
    const compatibleIds = yield* this.#ids(node, BusQueryId.COMPATIBLE_IDS)
    const containerId = this.#version.containerId ? yield* this.#containerId(node) : null
    const description = yield* this.#text(node, DeviceText.DESCRIPTION)
    const location = yield* this.#text(node, DeviceText.LOCATION_INFORMATION)
    const busType = yield* this.#busType(node)
    if (this.#short || capabilities === null) return Problem.OUT_OF_MEMORY
    if (!isDeviceId(deviceId)) return Problem.INVALID_DATA
    if (instanceId !== '' && !isInstanceId(instanceId)) return Problem.INVALID_DATA
    if (![...hardwareIds, ...compatibleIds].every(isHardwareId)) return Problem.INVALID_DATA
    const globallyUnique = (capabilities.flags & CapabilityFlag.UNIQUE_ID) !== 0 && instanceId !== ''
    const instance = globallyUnique
      ? instanceId
      : uniqueInstance(node.parent?.instancePath ?? '', node.depth, instanceId)
    node.instancePath = `${deviceId}\\${instance}`
    node.identity = {
      deviceId,
      hardwareIds,
      compatibleIds,
      containerId,
      description,
      location,
      capabilities: capabilities.flags,
      address: capabilities.address,
      busType,
    }
    return null
  }

  /** QUERY_CAPABILITIES; a stack that does not answer has none. Null when memory is short. */
  *capabilities(node: DeviceNode): Waiting<Capabilities | null> {
    const { pool, hal, memory } = this.#parts
    const none = { flags: 0, address: 0xffff_ffff }
    const at = pool.allocate(PoolType.NON_PAGED, DEVICE_CAPABILITIES.$size, CAPABILITIES_TAG, hal.irql)
    if (at === 0) return null
    const { window } = memory
    memory.zero(at, DEVICE_CAPABILITIES.$size)
    window.putLe16(DEVICE_CAPABILITIES.size, DEVICE_CAPABILITIES.$size, at)
    window.putLe16(DEVICE_CAPABILITIES.version, 1, at)
    window.putLe32(DEVICE_CAPABILITIES.address, none.address, at)
    window.putLe32(DEVICE_CAPABILITIES.uiNumber, 0xffff_ffff, at)
    const { status } = yield* this.#requests.send(node.pdo, PnpMinor.QUERY_CAPABILITIES, at)
    const told = {
      flags: window.le32(DEVICE_CAPABILITIES.flags, at),
      address: window.le32(DEVICE_CAPABILITIES.address, at),
    }
    pool.free(at, hal.irql)
    if (status === NtStatus.INSUFFICIENT_RESOURCES) return null
    return ntSuccess(status) ? told : none
  }

  /** One ID: '' when the PDO has none. One that nobody may answer stops the system. */
  *#id(node: DeviceNode, type: BusQueryId): Waiting<string> {
    const read = (at: number): string => {
      const text = readText(this.#parts, at)
      return text === null || isBrokenId(text) ? this.#broken(node, at, type) : text
    }
    return yield* this.#read(node, PnpMinor.QUERY_ID, type, 0, read, '')
  }

  *#ids(node: DeviceNode, type: BusQueryId): Waiting<string[]> {
    const read = (at: number): string[] => {
      const texts = readTextList(this.#parts, at)
      return texts === null || texts.some(isBrokenId) ? this.#broken(node, at, type) : texts
    }
    return yield* this.#read(node, PnpMinor.QUERY_ID, type, 0, read, [])
  }

  /** One that cannot be read is none. */
  *#containerId(node: DeviceNode): Waiting<string | null> {
    const read = (at: number): string | null => readText(this.#parts, at)
    const id = yield* this.#read(node, PnpMinor.QUERY_ID, BusQueryId.CONTAINER_ID, 0, read, null)
    return id === '' ? null : id
  }

  #broken(node: DeviceNode, at: number, type: BusQueryId): never {
    const which = [BusQueryId.DEVICE_ID, BusQueryId.INSTANCE_ID, BusQueryId.HARDWARE_IDS].indexOf(
      type as never,
    )
    keBugCheckEx(
      BugCode.PNP_DETECTED_FATAL_ERROR,
      PnpFatal.BROKEN_ID,
      node.pdo.at,
      at,
      which < 0 ? 4 : which + 1,
    )
  }

  *#text(node: DeviceNode, type: DeviceText): Waiting<string | null> {
    const read = (at: number): string | null => readText(this.#parts, at)
    return yield* this.#read(node, PnpMinor.QUERY_DEVICE_TEXT, type, LANGUAGE, read, null)
  }

  *#busType(node: DeviceNode): Waiting<number | null> {
    const { pool, memory } = this.#parts
    const read = (at: number): number | null =>
      pool.lengthOf(at) < PNP_BUS_INFORMATION.$size
        ? null
        : memory.window.le32(PNP_BUS_INFORMATION.legacyBusType, at)
    return yield* this.#read(node, PnpMinor.QUERY_BUS_INFORMATION, 0, 0, read, null)
  }

  /** A query whose answer is a pool block, which is freed once it is read. `missing`: there was no answer. */
  *#read<T>(
    node: DeviceNode,
    minor: PnpMinor,
    argument1: number,
    argument2: number,
    read: (at: number) => T,
    missing: T,
  ): Waiting<T> {
    const { pool, hal } = this.#parts
    const { status, information } = yield* this.#requests.send(node.pdo, minor, argument1, argument2)
    if (status === NtStatus.INSUFFICIENT_RESOURCES) this.#short = true
    if (!ntSuccess(status) || information === 0) return missing
    const value = read(information)
    pool.free(information, hal.irql)
    return value
  }
}
