import { type ChildProcess, spawn } from 'node:child_process'
import { endWithParent } from '../native/parent.ts'
import type { Violation } from '../protocol/violation.ts'
import { explain } from '../protocol/violation.ts'
import { Exit } from './exit.ts'

/** In the child's environment: who watches it, and which life this is. */
const WATCHED_BY = 'PARAVANE_WATCHED_BY'
const LIFE = 'PARAVANE_LIFE'

const SHRUNK: Violation = {
  rule: 'vhost.memory-shrunk',
  side: 'front-end',
  queue: null,
  at: null,
  seen: 0,
  expected: 0,
}

/** How this process came to be, when a supervisor started it; null otherwise. */
export interface Watched {
  /** True when another one before it was killed by its front-end: what was said once is not said again. */
  readonly again: boolean
}

/** To be asked once, at the start: from then on this process ends when its supervisor does. */
export function watched(): Watched | null {
  const parent = process.env[WATCHED_BY]
  if (parent === undefined) return null
  endWithParent(Number(parent))
  return { again: process.env[LIFE] !== '0' }
}

/**
 * Runs this very command in a child, and another one when its front-end kills it: whoever shares memory can make it
 * shorter, and the next access to it is a signal that no process survives. That is one broken rule and the end of
 * one session, not of the server.
 *
 * @param descriptor a socket that the child serves, where there is one: whoever is at its other end is not served twice.
 * @returns the child's exit code, or that a rule was broken.
 */
export async function supervise(say: (line: string) => void, descriptor: number | null): Promise<number> {
  let child: ChildProcess | null = null
  let stopping = false
  const pass = (signal: NodeJS.Signals): void => {
    stopping = true
    child?.kill(signal)
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.removeAllListeners(signal)
    process.on(signal, pass)
  }
  for (let life = 0, broken = false; ; life++) {
    child = start(life, descriptor)
    const { code, signal } = await ended(child)
    if (signal === 'SIGBUS') {
      broken = true
      say(explain(SHRUNK))
      if (!stopping && descriptor === null) continue
    }
    if (code === null) return signal === 'SIGBUS' || signal === null ? Exit.NOT_VERIFIED : died(signal, say)
    return broken && code === Exit.VERIFIED ? Exit.NOT_VERIFIED : code
  }
}

function start(life: number, descriptor: number | null): ChildProcess {
  const env = { ...process.env, [WATCHED_BY]: String(process.pid), [LIFE]: String(life) }
  // In a group of its own: Ctrl-C comes here, and is passed on once.
  return spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    env,
    stdio: stdioWith(descriptor),
    detached: true,
  })
}

/** Ours, and under its own number what was left open for the child. */
function stdioWith(descriptor: number | null): ('inherit' | 'ignore' | number)[] {
  const stdio: ('inherit' | 'ignore' | number)[] = ['inherit', 'inherit', 'inherit']
  if (descriptor === null) return stdio
  while (stdio.length < descriptor) stdio.push('ignore')
  stdio[descriptor] = descriptor
  return stdio
}

function ended(child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (code, signal) => resolve({ code, signal }))
  })
}

function died(signal: NodeJS.Signals, say: (line: string) => void): number {
  say(`the process that served was ended by ${signal}`)
  return Exit.NOT_VERIFIED
}
