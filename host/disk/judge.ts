import type { DiskFacts, DiskIo, DiskOutcome } from './backend.ts'

/** No disk is longer: beyond it a Number no longer counts single bytes. */
export const MAX_DISK_BYTES = 2 ** 53

/**
 * The one place where a request is judged: 'ok' when it may go ahead, else the outcome to answer with.
 *
 * Takes any number there is, NaN and infinities included, and never adds two of them: `offset + lengthBytes`
 * may round.
 *
 * @param gone the backend has closed or its medium has left for good.
 */
export function judge(io: DiskIo, facts: DiskFacts, gone: boolean): DiskOutcome {
  if (gone) return 'gone'
  if (io.op !== 'read') {
    const refusal = judgeAbility(io, facts)
    if (refusal !== 'ok') return refusal
  }
  if (!facts.medium) return 'medium-error'
  if (io.op === 'flush') return 'ok'
  if (io.op === 'resize') return judgeNewLength(io.lengthBytes, facts.blockBytes)
  const { offset, lengthBytes } = io
  const limit = facts.lengthBytes
  // An offset past the end leaves less than nothing.
  if (!(offset >= 0 && lengthBytes >= 0 && lengthBytes <= limit - offset)) {
    return 'out-of-range'
  }
  if (!isWhole(offset, facts.blockBytes) || !isWhole(lengthBytes, facts.blockBytes)) return 'misaligned'
  return 'ok'
}

/** Answers a request that `judge` refused, with the first bad offset where there is one. */
export function refuse(io: DiskIo, outcome: DiskOutcome, facts: DiskFacts): void {
  io.answer(outcome, 0, badOffset(io, outcome, facts))
}

function judgeAbility(io: DiskIo, facts: DiskFacts): DiskOutcome {
  const can = facts.can
  switch (io.op) {
    case 'read':
    case 'flush':
      return 'ok'
    case 'extents':
      return can.extents ? 'ok' : 'unsupported'
    case 'write':
      if (io.fua && !can.fua) return 'unsupported'
      break
    case 'zero':
      if (!can.zero || (io.fua && !can.fua)) return 'unsupported'
      break
    case 'discard':
      if (!can.discard) return 'unsupported'
      break
    case 'erase':
      if (!can.erase) return 'unsupported'
      break
    case 'resize':
      if (!can.resize) return 'unsupported'
      break
  }
  return facts.readOnly ? 'read-only' : 'ok'
}

function judgeNewLength(lengthBytes: number, blockBytes: number): DiskOutcome {
  if (!(lengthBytes >= 0 && lengthBytes <= MAX_DISK_BYTES)) return 'out-of-range'
  return isWhole(lengthBytes, blockBytes) ? 'ok' : 'misaligned'
}

/** Whether `bytes` is a multiple of `unit`, a power of two: the division is exact, and cheaper than `%`. */
function isWhole(bytes: number, unit: number): boolean {
  const units = bytes / unit
  return Math.floor(units) === units
}

function badOffset(io: DiskIo, outcome: DiskOutcome, facts: DiskFacts): number | null {
  if (outcome === 'misaligned') return io.offset
  if (outcome !== 'out-of-range' || io.op === 'resize') return null
  if (io.offset >= 0 && io.offset <= facts.lengthBytes) return facts.lengthBytes
  return Number.isFinite(io.offset) ? io.offset : null
}
