import { encode } from '../../protocol/derive/codec.ts'
import { hasVhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import { u64Of } from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import { FrontEndMessage } from '../../protocol/vhost-user/message.ts'
import {
  VHOST_LOG_PAGE_BYTES,
  VHOST_USER_CONFIG_BYTES_MAX,
  VhostUserConfig,
  VhostUserConfigFlag,
  VhostUserInflight,
  VhostUserLog,
  VhostUserMemory,
  VhostUserRegion,
  VhostUserSlot,
  VhostUserU64,
} from '../../protocol/vhost-user/payload.ts'
import type { VhostBackEnd } from './back-end.ts'
import { OFFERED_PROTOCOL } from './back-end.ts'
import { InflightBuffer, newBuffer, readInflight, shapeBroken } from './inflight-buffer.ts'
import type { AskedRegion } from './memory-table.ts'
import { MEMORY_SLOTS, MemoryTable, readRegion } from './memory-table.ts'
import type { Outcome, Request } from './outcome.ts'
import { DONE, refused, reply, replyU64 } from './outcome.ts'
import { RING_REQUESTS } from './ring-requests.ts'

type Carry = (end: VhostBackEnd, request: Request) => Outcome

const STATUS_MASK = 0xffn

function setMemoryTable(end: VhostBackEnd, { payload, riding }: Request): Outcome {
  const count = payload.le32(VhostUserMemory.count)
  const asked: AskedRegion[] = Array.from({ length: count }, (_, index) =>
    readRegion(payload, VhostUserMemory.regions + index * VhostUserRegion.$size),
  )
  if (isUnsealed(end, riding)) return refused('vhost.memory-unsealed', 0, 1)
  const table = MemoryTable.of(asked, riding.all, end.edge)
  if (!(table instanceof MemoryTable)) return { kind: 'refused', queue: null, ...table }
  const before = end.table
  return {
    kind: 'later',
    begin: (finish) =>
      end.replace(
        table,
        () => before.revokeAll(),
        () => finish(DONE),
      ),
  }
}

function addRegion(end: VhostBackEnd, { payload, riding }: Request): Outcome {
  const { first } = riding
  if (first === null) return refused('vhost.descriptor-count', 0, 1)
  if (isUnsealed(end, riding)) return refused('vhost.memory-unsealed', 0, 1)
  const table = end.table.with(readRegion(payload, VhostUserSlot.region), first, end.edge)
  if (!(table instanceof MemoryTable)) return { kind: 'refused', queue: null, ...table }
  end.grow(table)
  return DONE
}

function removeRegion(end: VhostBackEnd, { payload, riding }: Request): Outcome {
  const stray = riding.all.length
  if (stray > 0) {
    const at = FrontEndMessage.REM_MEM_REG.code
    end.violated({ rule: 'vhost.region-stray', side: 'front-end', queue: null, at, seen: stray, expected: 0 })
  }
  const asked = readRegion(payload, VhostUserSlot.region)
  const left = end.table.without(asked)
  if (left === null) return refused('vhost.region-unknown', asked.guest, end.table.count)
  return { kind: 'later', begin: (finish) => end.replace(left.table, left.revoke, () => finish(DONE)) }
}

/** Files cannot be sealed; whoever has one can make it shorter under us. */
function isUnsealed(end: VhostBackEnd, riding: Request['riding']): boolean {
  return riding.all.some(({ kind, keepsLength }) => kind === 'file' && !keepsLength) && end.unsealed()
}

function setLogBase(end: VhostBackEnd, { payload, bytes, riding }: Request): Outcome {
  const descriptor = riding.first
  if (!hasVhostUserFeature(end.negotiated.protocol, 'LOG_SHMFD') || bytes.length !== VhostUserLog.$size) {
    return refused('vhost.payload-size', bytes.length, VhostUserLog.$size)
  }
  if (descriptor === null) return refused('vhost.descriptor-count', 0, 1)
  const sizeBytes = payload.le64(VhostUserLog.size)
  const offset = payload.le64(VhostUserLog.offset)
  if (descriptor.kind !== 'file') return refused('vhost.descriptor-kind', 0, 0)
  if (isUnsealed(end, riding)) return refused('vhost.memory-unsealed', 0, 1)
  // Checked before it is added up: a size that wraps would map less than it says.
  const neededBytes = Math.ceil(end.table.guestEnd / (VHOST_LOG_PAGE_BYTES * 8))
  if (!(sizeBytes >= Math.max(1, neededBytes))) return refused('vhost.log-range', sizeBytes, neededBytes)
  if (!(Number.isSafeInteger(offset + sizeBytes) && offset + sizeBytes <= descriptor.lengthBytes)) {
    return refused('vhost.region-backed', offset + sizeBytes, descriptor.lengthBytes)
  }
  const memory = end.edge.map(descriptor, offset, sizeBytes)
  if (memory === null) return refused('vhost.region-backed', sizeBytes, 0)
  end.setLog(memory)
  return DONE
}

function getConfig(end: VhostBackEnd, { payload, bytes }: Request): Outcome {
  const offset = payload.le32(VhostUserConfig.offset)
  const size = payload.le32(VhostUserConfig.size)
  if (!(offset + size <= VHOST_USER_CONFIG_BYTES_MAX)) {
    return refused('vhost.config-range', offset + size, VHOST_USER_CONFIG_BYTES_MAX)
  }
  const answer = bytes.slice()
  for (let i = 0; i < size; i++) answer[VhostUserConfig.bytes + i] = end.device.readConfig(offset + i, 1)
  return reply(answer)
}

function setConfig(end: VhostBackEnd, { payload, bytes }: Request): Outcome {
  const offset = payload.le32(VhostUserConfig.offset)
  const size = payload.le32(VhostUserConfig.size)
  const flags = payload.le32(VhostUserConfig.flags)
  if (!(offset + size <= VHOST_USER_CONFIG_BYTES_MAX)) {
    return refused('vhost.config-range', offset + size, VHOST_USER_CONFIG_BYTES_MAX)
  }
  if (!(Object.values(VhostUserConfigFlag) as number[]).includes(flags)) {
    return refused('vhost.config-flags', flags, VhostUserConfigFlag.MIGRATION)
  }
  for (let i = 0; i < size; i++) {
    const value = bytes[VhostUserConfig.bytes + i] ?? 0
    // What stays as it is needs no write: migration sends the whole space, read-only fields and all.
    if (end.device.readConfig(offset + i, 1) === value) continue
    end.device.writeConfig(offset + i, 1, value)
    if (end.device.readConfig(offset + i, 1) !== value) return refused('vhost.config-range', offset + i, 0)
  }
  return DONE
}

function getInflight(end: VhostBackEnd, { payload }: Request): Outcome {
  const asked = readInflight(payload)
  const broken = shapeBroken(asked, end.device.queueSizes)
  if (broken !== null) return { kind: 'refused', queue: null, ...broken }
  const made = newBuffer(asked, end.edge)
  if (made === null) return refused('vhost.region-backed', asked.queues, 0)
  return reply(made.payload, made.descriptor)
}

function setInflight(end: VhostBackEnd, { payload, riding }: Request): Outcome {
  const running = end.rings.find((ring) => ring.started)
  if (running !== undefined) return refused('vhost.ring-live', running.index, 0, running.index)
  const { first } = riding
  if (first === null) return refused('vhost.descriptor-count', 0, 1)
  if (isUnsealed(end, riding)) return refused('vhost.memory-unsealed', 0, 1)
  const buffer = InflightBuffer.of(readInflight(payload), end.device.queueSizes, first, end.edge)
  if (!(buffer instanceof InflightBuffer)) return { kind: 'refused', queue: null, ...buffer }
  end.setInflight(buffer)
  return DONE
}

function setChannel(end: VhostBackEnd, { riding }: Request): Outcome {
  const channel = riding.give((descriptor) => end.edge.channel(descriptor))
  if (channel === null) return refused('vhost.descriptor-kind', 0, 0)
  end.setChannel(channel)
  return DONE
}

function setStatus(end: VhostBackEnd, { bytes }: Request): Outcome {
  const status = u64Of(bytes)
  if ((status & ~STATUS_MASK) !== 0n) return refused('status.unknown-bit', Number(status), 0xff)
  // Zero does not reset the rings: QEMU says it first, and asks them afterwards where they stand. It also sets
  // FEATURES_OK before ACKNOWLEDGE: the order is a driver's, not a front-end's.
  end.status = Number(status)
  return DONE
}

function resetDevice(end: VhostBackEnd): Outcome {
  return { kind: 'later', begin: (finish) => end.reset(() => finish(DONE)) }
}

const REQUESTS: { readonly [N in FrontEndMessageName]?: Carry } = {
  ...RING_REQUESTS,
  GET_FEATURES: (end) => replyU64(end.offered),
  SET_FEATURES: (end, { bytes }) => end.setFeatures(u64Of(bytes)),
  GET_PROTOCOL_FEATURES: () => replyU64(OFFERED_PROTOCOL),
  SET_PROTOCOL_FEATURES: (end, { bytes }) => end.setProtocolFeatures(u64Of(bytes)),
  GET_QUEUE_NUM: (end) => replyU64(end.rings.length),
  SET_OWNER: () => DONE,
  // Out of use, and to be ignored: what it once reset, RESET_DEVICE does.
  RESET_OWNER: () => DONE,
  SET_MEM_TABLE: setMemoryTable,
  GET_MAX_MEM_SLOTS: () => replyU64(MEMORY_SLOTS),
  ADD_MEM_REG: addRegion,
  REM_MEM_REG: removeRegion,
  SET_LOG_BASE: setLogBase,
  // Its event says that the log changed; whoever migrates looks at the log itself.
  SET_LOG_FD: () => DONE,
  SET_BACKEND_REQ_FD: setChannel,
  GET_CONFIG: getConfig,
  SET_CONFIG: setConfig,
  GET_INFLIGHT_FD: getInflight,
  SET_INFLIGHT_FD: setInflight,
  RESET_DEVICE: resetDevice,
  SET_STATUS: setStatus,
  GET_STATUS: (end) => replyU64(end.status),
}

/** Carries out a message that is well-formed and whose gate is open. */
export function carryOut(end: VhostBackEnd, request: Request): Outcome {
  const carry = REQUESTS[request.name]
  // Its gate names nothing, and still it is for other devices.
  if (carry === undefined) return refused('vhost.gate', FrontEndMessage[request.name].code, 0)
  return carry(end, request)
}

/** What is answered in place of a reply, where a message has a way to say that it failed; null elsewhere. */
export function failure(name: FrontEndMessageName): Uint8Array | null {
  if (name === 'GET_CONFIG') return new Uint8Array(0)
  if (name === 'GET_INFLIGHT_FD') return new Uint8Array(VhostUserInflight.$size)
  if (name === 'SET_LOG_BASE' || name === 'IOTLB_MSG') return encode(VhostUserU64, { value: 1n })
  return null
}
