/** Run as a program, says how long a loop that nothing wakes asks to sleep, turn by turn. */
import { pathToFileURL } from 'node:url'
import { PollLoop } from '../../native/poll-loop.ts'
import { PollSet } from '../../native/poll-set.ts'

/** Microseconds after which each turn is due again; in the first, Node is still busy with its own start. */
export const DUE = [3000, 1000, 2000]

async function askedOfAnIdleLoop(): Promise<(number | null)[]> {
  using loop = new PollLoop()
  const asked: (number | null)[] = []
  const { wait } = PollSet.prototype
  PollSet.prototype.wait = function (this: PollSet, timeoutUs) {
    asked.push(timeoutUs)
    return wait.call(this, timeoutUs)
  }
  await loop.run({
    turn() {
      const due = DUE[asked.length]
      if (due === undefined) loop.stop()
      return due ?? 0
    },
  })
  return asked
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  process.stdout.write(`${JSON.stringify(await askedOfAnIdleLoop())}\n`)
}
