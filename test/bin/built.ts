import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll } from 'vitest'
import { scratch } from '../host/disk-subjects.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** The package as it would be installed, built from these sources into a folder of its own. */
export class Built {
  readonly directory: string
  readonly program: string

  /** Builds; takes a second or two. Whoever asks removes it. */
  constructor() {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-built-'))
    this.program = path.join(this.directory, 'dist/bin/paravane.js')
    const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc')
    const args = [tsc, '-p', 'tsconfig.build.json', '--outDir', path.join(this.directory, 'dist')]
    const built = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' })
    if (built.status !== 0) throw new Error(`the build fails: ${built.stdout}${built.stderr}`)
    fs.copyFileSync(path.join(ROOT, 'package.json'), path.join(this.directory, 'package.json'))
    fs.symlinkSync(path.join(ROOT, 'node_modules'), path.join(this.directory, 'node_modules'))
  }

  remove(): void {
    fs.rmSync(this.directory, { recursive: true, force: true })
  }

  start(args: readonly string[], cwd: string, env: { readonly [name: string]: string } = {}): ChildProcess {
    return spawn(process.execPath, [this.program, ...args], { cwd, env: { ...plainEnvironment(), ...env } })
  }

  run(args: readonly string[], cwd: string, env: { readonly [name: string]: string } = {}): Promise<Ended> {
    return ended(this.start(args, cwd, env))
  }
}

/** What the tests of a file run the program with: built before the first of them, gone after the last. */
export interface Workplace {
  readonly built: Built
  /** A folder of their own. */
  readonly directory: string
}

export function workplace(): Workplace {
  const { directory, remove } = scratch()
  let built: Built | null = null
  beforeAll(() => {
    built = new Built()
  })
  afterAll(() => {
    remove()
    built?.remove()
  })
  return {
    directory,
    get built(): Built {
      if (built === null) throw new Error('the program is built when the tests begin')
      return built
    },
  }
}

/** Nothing of whoever runs the tests decides about colours. */
export function plainEnvironment(): NodeJS.ProcessEnv {
  const {
    NO_COLOR: _no,
    FORCE_COLOR: _force,
    COLORTERM: _term,
    CI: _ci,
    NODE_OPTIONS: _options,
    ...rest
  } = process.env
  return { ...rest, TERM: 'xterm-256color' }
}

/** What a process wrote and how it ended. */
export function ended(child: ChildProcess): Promise<Ended> {
  let stdout = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
}
