import fc from 'fast-check'
import { parseWhole } from '../../host/disk/option.ts'
import { HostileRun, hostileSequence } from './vhost-hostile-front-end.ts'

/**
 * Malformed message sequences without end: `npm run soak:vhost-user -- [sequences] [seed]`, 100,000 by default.
 * Fails with the sequence that leaves something behind, or when memory grows with their number.
 */
const sequences = parseWhole(process.argv[2] ?? '100000')
const seed = parseWhole(process.argv[3] ?? '1')
if (sequences === null || seed === null || sequences === 0) {
  process.stderr.write('soak:vhost-user takes a number of sequences and a seed\n')
  process.exit(2)
}

const ROUND = 5000
/** What a run may hold more at its end than after its first rounds: the collector's slack, not a leak a sequence. */
const GROWTH_BYTES = 48 * 1024 * 1024

const run = new HostileRun()
let settledBytes = 0
for (let done = 0; done < sequences; done += ROUND) {
  const numRuns = Math.min(ROUND, sequences - done)
  fc.assert(
    fc.property(hostileSequence, (sequence) => run.play(sequence)),
    { numRuns, seed: seed + done },
  )
  const heldBytes = process.memoryUsage().heapUsed
  if (done === ROUND) settledBytes = heldBytes
  const ends = [...run.ends].map(([why, count]) => `${count} ${why}`).join(', ')
  process.stdout.write(`${done + numRuns} sequences: ${ends}; heap ${Math.round(heldBytes / 1e6)} MB\n`)
  if (settledBytes > 0 && heldBytes > settledBytes + GROWTH_BYTES) {
    process.stderr.write(
      `memory grows: ${settledBytes} bytes after ${2 * ROUND} sequences, now ${heldBytes}\n`,
    )
    process.exit(1)
  }
}
