import { expect } from 'vitest'

interface Skippable {
  readonly skip: (note?: string) => void
}

/** A peer that is missing is skipped aloud; where peers are required (CI), its absence is a failure. */
export function peerOrSkip(test: Skippable, peer: string, missing: string | null): void {
  if (missing === null) return
  if (process.env['PARAVANE_REQUIRE_PEERS'] === '1') {
    expect.fail(`${missing} is missing and PARAVANE_REQUIRE_PEERS is 1`)
  }
  console.warn(`${peer}: not asked, ${missing} is missing`)
  test.skip(`${missing} is missing`)
}
