/**
 * Runs the witness cases under Bochs, an independent emulator of VT-x: assembles the harness, boots it once,
 * and reads one line per step from an emulated printer port.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { includes } from './assemble.ts'
import type { WitnessCase } from './cases.ts'
import { MEMORY } from './defaults.ts'
import { type Answer, type Outcome, REPORTED_FIELDS, type ReportedField, reduce } from './records.ts'

const SECTOR_BYTES = 512
const TIMEOUT_MS = 60_000
const FIRST_CAPABILITY = 0x480

const BIOS = '/usr/share/bochs/BIOS-bochs-latest'
const VGA_BIOS = '/usr/share/vgabios/vgabios.bin'

/** What is missing on this machine to run Bochs, or null. */
export function missingTool(): string | null {
  for (const tool of ['bochs', 'nasm', 'script']) {
    if (spawnSync('which', [tool]).status !== 0) return tool
  }
  for (const file of [BIOS, VGA_BIOS]) {
    if (!existsSync(file)) return file
  }
  return null
}

export interface CaseOutcomes {
  readonly name: string
  readonly outcomes: readonly Outcome[]
}

export interface WitnessRun {
  /** IA32_VMX_* capability MSRs by number. */
  readonly capabilities: Readonly<Record<number, bigint>>
  readonly cases: readonly CaseOutcomes[]
}

/** Runs all cases in one boot. Throws when the run itself fails: there is no peer's input here. */
export function runBochs(cases: readonly WitnessCase[]): WitnessRun {
  const folder = mkdtempSync(join(tmpdir(), 'witness-'))
  try {
    writeDisk(folder, cases)
    writeFileSync(join(folder, 'bochsrc'), CONFIGURATION)
    writeFileSync(join(folder, 'debugger'), 'c\n')
    boot(folder)
    const printer = join(folder, 'printer')
    if (!existsSync(printer)) throw new Error(`Bochs did not start:\n${lastLines(join(folder, 'terminal'))}`)
    return parse(readFileSync(printer, 'latin1'), cases)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const CYLINDERS = 4
const HEADS = 16
const SECTORS_PER_TRACK = 63

/**
 * The machine: Debian's build stops in its debugger first, hence `debugger`; `printer` receives our lines. With
 * the sound library installed and no sound card it would end before it starts, hence `sound`.
 */
const CONFIGURATION = `config_interface: textconfig
display_library: term
memory: guest=64, host=64
romimage: file=${BIOS}
vgaromimage: file=${VGA_BIOS}
cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path=disk, mode=flat, cylinders=${CYLINDERS}, heads=${HEADS}, spt=${SECTORS_PER_TRACK}
boot: disk
parport1: enabled=1, file=printer
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
log: log
panic: action=fatal
error: action=report
`

function writeDisk(folder: string, cases: readonly WitnessCase[]): void {
  for (const [name, text] of Object.entries(includes(cases))) writeFileSync(join(folder, name), text)
  const disk = Buffer.alloc(CYLINDERS * HEADS * SECTORS_PER_TRACK * SECTOR_BYTES)
  let offset = 0
  for (const name of ['boot', 'harness']) {
    copyFileSync(new URL(`./${name}.asm`, import.meta.url), join(folder, `${name}.asm`))
    const { status, stderr } = spawnSync('nasm', ['-f', 'bin', '-o', name, `${name}.asm`], { cwd: folder })
    if (status !== 0) throw new Error(`nasm ${name}.asm: ${stderr}`)
    offset += readFileSync(join(folder, name)).copy(disk, offset)
  }
  const limit = (1 + MEMORY.imageSectors) * SECTOR_BYTES
  if (offset > limit) throw new Error(`the harness takes ${offset} bytes, its loader reads ${limit}`)
  writeFileSync(join(folder, 'disk'), disk)
}

function boot(folder: string): void {
  spawnSync('script', ['-qfc', 'bochs -q -f bochsrc -rc debugger', join(folder, 'terminal')], {
    cwd: folder,
    env: { ...process.env, TERM: 'xterm' },
    stdio: ['ignore', 'ignore', 'ignore'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  })
}

function lastLines(path: string): string {
  return existsSync(path)
    ? readFileSync(path, 'latin1').split('\n').slice(-12).join('\n')
    : 'no terminal output'
}

function parse(text: string, cases: readonly WitnessCase[]): WitnessRun {
  const lines = text.split('\n').filter((line) => line !== '')
  const answers: Answer[] = []
  let capabilities: Record<number, bigint> = {}
  for (const line of lines.slice(0, -1)) {
    const [kind, ...words] = line.split(' ')
    if (kind === 'C') capabilities = parseCapabilities(words)
    else if (kind === 'F') answers.push({ kind: 'vmfail', error: Number(BigInt.asIntN(64, hex(words[0]))) })
    else if (kind === 'E') answers.push(parseExit(words))
    else throw new Error(`${place(answers.length, cases)}: the harness says "${line}"`)
  }
  if (lines.at(-1) !== '.') {
    throw new Error(`${place(answers.length, cases)}: the run ended with "${lines.at(-1) ?? ''}"`)
  }
  return { capabilities, cases: distribute(answers, cases) }
}

const hex = (word: string | undefined): bigint => BigInt(`0x${word}`)

function parseCapabilities(words: readonly string[]): Record<number, bigint> {
  return Object.fromEntries(words.map((word, index) => [FIRST_CAPABILITY + index, hex(word)]))
}

function parseExit(words: readonly string[]): Answer {
  const numbers = words.map((word) => Number(hex(word)))
  const entries = REPORTED_FIELDS.map((name, index) => [name, numbers[index]])
  const general = numbers.slice(REPORTED_FIELDS.length)
  return {
    kind: 'exit',
    fields: Object.fromEntries(entries) as Record<ReportedField, number>,
    registers: { rcx: general[1] ?? 0, rsi: general[6] ?? 0, rdi: general[7] ?? 0 },
  }
}

function distribute(answers: readonly Answer[], cases: readonly WitnessCase[]): CaseOutcomes[] {
  let next = 0
  const result = cases.map(({ name, steps }) => {
    const outcomes = answers.slice(next, next + steps.length).map(reduce)
    next += steps.length
    return { name, outcomes }
  })
  if (next !== answers.length) throw new Error(`${answers.length} answers to ${next} steps`)
  return result
}

/** The name of the case that answer number `index` belongs to. */
function place(index: number, cases: readonly WitnessCase[]): string {
  let seen = 0
  for (const one of cases) {
    seen += one.steps.length
    if (index < seen) return one.name
  }
  return 'after the last case'
}
