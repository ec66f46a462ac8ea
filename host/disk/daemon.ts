import type { DiskDeviceKind, DiskOptions, Opened } from './backend.ts'
import { OptionReader } from './option.ts'

const LONGEST_MS = 3_600_000

/** A daemon that a device in front of a disk's place is to find. */
export interface DaemonPlace {
  readonly socket: string
  /** Real time a daemon may owe something without moving before virtual time goes on without it. */
  readonly patienceMs: number
  /** Real time in which one that went away may come back; 0: it may not. */
  readonly reconnectMs: number
}

/** Stands where a disk stands and is none: it is a whole device, which nothing can be piped after. */
export const VHOST_USER: DiskDeviceKind = {
  role: 'device',
  kind: 'vhost-user',
  summary: 'a block device that a vhost-user daemon serves from the guest’s own memory',
  example: 'vhost-user:disk.sock',
  argument: { name: 'socket', meaning: 'the Unix socket the daemon listens at', required: true },
  options: {
    patience: 'milliseconds it may not move before the guest’s own timeouts decide; 10000 by default',
    reconnect: 'milliseconds in which a daemon that went away may come back; 0 by default: it may not',
  },
}

/** Where the daemon of a spec's layer is, checked. */
export function daemonPlace(options: DiskOptions): Opened<DaemonPlace> {
  const reader = new OptionReader(VHOST_USER.kind, options)
  const patienceMs = reader.whole('patience', 10_000, 100, LONGEST_MS)
  const reconnectMs = reader.whole('reconnect', 0, 0, LONGEST_MS)
  if (reader.error !== null) return { ok: false, error: reader.error }
  return { ok: true, value: { socket: options.argument ?? '', patienceMs, reconnectMs } }
}
