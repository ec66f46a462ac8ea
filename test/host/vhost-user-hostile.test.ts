import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HostileRun, hostileSequence } from './vhost-hostile-front-end.ts'

describe('a back-end with a hostile front-end', () => {
  it('throws nothing and gives every descriptor and mapping back, whatever it is sent in whatever order', () => {
    let run = new HostileRun()
    fc.assert(
      fc.property(hostileSequence, (sequence) => {
        try {
          run.play(sequence)
        } catch (problem) {
          // What this one leaves is not the next one's.
          run = new HostileRun()
          throw problem
        }
      }),
      { numRuns: 3000 },
    )
    // Sequences get somewhere: not all of them end with the first message.
    expect(run.ends.get('hung-up') ?? 0).toBeGreaterThan(300)
    expect(run.ends.get('violation') ?? 0).toBeGreaterThan(300)
  })
})
