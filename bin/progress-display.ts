import cliProgress from 'cli-progress'
import type { Progress } from '../bench/disk-run.ts'
import { bytesText, groupedText } from './quantity.ts'

/** Runs shorter than this show nothing but their result. */
const PATIENCE_MS = 1000
/** In a pipe: a line at most this often. */
const LINE_MS = 2000

/**
 * How far a run is, on standard error: a bar on a terminal, a line now and then in a pipe, nothing at all for
 * the first second.
 */
export class ProgressDisplay {
  readonly #terminal: boolean
  readonly #startedMs: number
  #bar: cliProgress.SingleBar | null
  #shown: string
  #lineMs: number

  constructor() {
    this.#terminal = process.stderr.isTTY === true
    this.#startedMs = performance.now()
    this.#bar = null
    this.#shown = ''
    this.#lineMs = Number.NEGATIVE_INFINITY
  }

  readonly show = (progress: Progress): void => {
    const nowMs = performance.now()
    if (nowMs - this.#startedMs < PATIENCE_MS) return
    if (this.#terminal) this.#draw(progress)
    else if (nowMs - this.#lineMs >= LINE_MS) {
      this.#lineMs = nowMs
      process.stderr.write(`${progress.disk}: ${phaseText(progress)}\n`)
    }
  }

  /** Takes the bar away and gives the cursor back. */
  stop(): void {
    this.#bar?.stop()
    this.#bar = null
  }

  #draw(progress: Progress): void {
    const shown = `${progress.disk} ${progress.phase}`
    if (this.#bar === null || shown !== this.#shown) {
      this.stop()
      this.#shown = shown
      this.#bar = new cliProgress.SingleBar({
        format: `${progress.disk} {bar} {percentage}%  {text}`,
        barCompleteChar: '█',
        barIncompleteChar: '░',
        barsize: 32,
        hideCursor: true,
        clearOnComplete: true,
        stream: process.stderr,
      })
      this.#bar.start(progress.total, 0, { text: '' })
    }
    this.#bar.update(progress.done, { text: phaseText(progress) })
  }
}

function phaseText({ phase, done, total }: Progress): string {
  if (phase === 'read') return `read ${bytesText(done)} of ${bytesText(total)}`
  return `${groupedText(done)} of ${groupedText(total)} requests`
}
