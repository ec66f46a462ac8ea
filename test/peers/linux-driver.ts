/** The transcript of a Linux driver: what it wrote and read, and the memory each notification was about. */
import { readFileSync } from 'node:fs'

export const TRANSCRIPT = new URL('./fixtures/linux-driver.json', import.meta.url)

/** Address and bytes, both in hexadecimal. */
export type Patch = readonly [at: string, bytes: string]

/** A register access: offset, width in bytes, value. */
export interface Access {
  readonly kind: 'read' | 'write'
  readonly offset: number
  readonly width: 1 | 2 | 4
  readonly value: number
}

/** A queue becomes ready: its areas, which the driver has just cleared. */
export interface QueueStart {
  readonly kind: 'queue'
  readonly size: number
  readonly descriptors: number
  readonly driver: number
  readonly device: number
}

type Pieces = readonly (readonly [at: number, lengthBytes: number])[]

/**
 * A notification for one request, with the interrupt it led to still ahead. `memory` is all that a device may
 * read for it: available ring, descriptors, indirect tables, header, data to write, and the event word as it
 * stood. `used` and `status` are QEMU's answer: head, bytes, status byte.
 */
export interface Notification {
  readonly kind: 'notify'
  readonly queue: number
  readonly memory: readonly Patch[]
  /** The header, then data of a write. */
  readonly readable: Pieces
  /** Where data is to be read into, then the status byte. */
  readonly writable: Pieces
  readonly used: readonly [head: number, lengthBytes: number]
  readonly status: number
}

export type TranscriptEvent = Access | QueueStart | Notification

export interface Transcript {
  readonly kernel: string
  readonly qemu: string
  readonly diskBytes: number
  readonly events: readonly TranscriptEvent[]
}

export function recordedTranscript(): Transcript {
  return JSON.parse(readFileSync(TRANSCRIPT, 'utf8')) as Transcript
}

/** One event a line. */
export function transcriptText({ kernel, qemu, diskBytes, events }: Transcript): string {
  return `{
  "kernel": ${JSON.stringify(kernel)},
  "qemu": ${JSON.stringify(qemu)},
  "diskBytes": ${diskBytes},
  "events": [
${events.map((event) => `    ${JSON.stringify(event)}`).join(',\n')}
  ]
}
`
}
