/** What an adapter counts, for reports and tests. */
export interface PortCounts {
  completed: number
  busyRetries: number
  timeouts: number
  resets: number
  /** Ends of requests that were not out: a miniport's mistake. */
  strayCompletions: number
  /** Requests given up while the miniport had them. */
  orphans: number
  /** Pages left to a device that did not let go of them. */
  pagesOnLoan: number
  interrupts: number
  /** Bytes moved between a request's pages and a buffer in a row, for miniports that need one. */
  bytesCopied: number
}

export function freshCounts(): PortCounts {
  return {
    completed: 0,
    busyRetries: 0,
    timeouts: 0,
    resets: 0,
    strayCompletions: 0,
    orphans: 0,
    pagesOnLoan: 0,
    interrupts: 0,
    bytesCopied: 0,
  }
}
