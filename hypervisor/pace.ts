/** The real clock of whoever serves: injected, because the rooms know none. */
export interface Pace {
  /** Real time in microseconds from any origin; never runs backwards. */
  nowUs(): number
  /** Calls `wake` once, after `us` microseconds (at once when that is not positive). The answer cancels it. */
  sleep(us: number, wake: () => void): () => void
}
