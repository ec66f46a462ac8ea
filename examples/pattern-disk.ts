import type { DiskBackend, DiskFacts, DiskIo, DiskOutcome, DiskSourceKind } from 'paravane/host'

/** A read-only disk on which every byte tells the number of its block: wrong offsets show at once. */
function patternDisk(facts: DiskFacts): DiskBackend {
  let open = true
  return {
    facts,
    submit: (io) => io.answer(open ? serve(io, facts) : 'gone'),
    watch: () => () => {},
    close(finished) {
      open = false
      finished()
    },
  }
}

/** Judges, then fills the lent views: guest memory, of any length and alignment. */
function serve({ op, offset, lengthBytes, lent }: DiskIo, facts: DiskFacts): DiskOutcome {
  const end = facts.lengthBytes
  if (op === 'flush') return 'ok'
  if (op !== 'read') return op === 'write' ? 'read-only' : 'unsupported'
  if (!(offset >= 0 && offset <= end && lengthBytes >= 0 && lengthBytes <= end - offset))
    return 'out-of-range'
  if (offset % 512 !== 0 || lengthBytes % 512 !== 0) return 'misaligned'
  let at = offset
  for (const view of lent) for (let i = 0; i < view.length; i++) view[i] = patternAt(at++)
  return 'ok'
}

/** Byte `at % 4` of the block's number, least significant first. */
const patternAt = (at: number) => Math.floor(Math.floor(at / 512) / 256 ** (at % 4)) % 256

const can = { fua: false, zero: false, discard: false, erase: false, resize: false, extents: false }
const block = { blockBytes: 512, physicalBlockBytes: 512, serial: 'PATTERN' }
const state = { readOnly: true, medium: true, volatileCache: false, synchronous: true, privateLoans: true }

export default {
  role: 'source',
  kind: 'pattern',
  summary: 'a read-only disk on which every byte tells the number of its block',
  example: 'module:./pattern-disk.ts,sectors=2048',
  options: { sectors: 'its length in sectors of 512 bytes; 2048 by default' },
  async open({ values }) {
    const sectors = values.get('sectors') ?? '2048'
    if (!/^[0-9]{1,12}$/.test(sectors))
      return { ok: false, error: `pattern: ${sectors} is no count of sectors` }
    return { ok: true, value: patternDisk({ ...block, ...state, can, lengthBytes: Number(sectors) * 512 }) }
  },
} satisfies DiskSourceKind
