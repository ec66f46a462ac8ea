import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { openDisk } from '../../host/disk/registry.ts'
import type { VirtualClock } from '../../hypervisor/clock.ts'
import type { ModelDisk } from './blk-model.ts'
import { escapePath, imageMaker, platformAt } from './disk-subjects.ts'

/** A disk for the block device, and what a model of it starts from. */
export interface BlkSubject {
  readonly name: string
  /** Kinds of the registry it is made of. */
  readonly kinds: readonly string[]
  readonly model: ModelDisk
  open(clock: VirtualClock): Promise<DiskBackend>
}

const EXAMPLE = fileURLToPath(new URL('../../examples/pattern-disk.ts', import.meta.url))
const PATTERN_SECTORS = 48

function patternContent(): Uint8Array {
  return Uint8Array.from(
    { length: PATTERN_SECTORS * 512 },
    (_, at) => Math.floor(at / 512 / 256 ** (at % 4)) % 256,
  )
}

/** Every kind there is, small, some with blocks of 4 KiB, an odd length, read-only or worn. */
export function blkSubjects(directory: string): readonly BlkSubject[] {
  const image = (lengthBytes: number, block = 512) => {
    const make = imageMaker(directory, `blk-${lengthBytes}-${block}`, lengthBytes)
    const first = make()
    const content = new Uint8Array(Math.ceil(lengthBytes / block) * block)
    content.set(fs.readFileSync(first))
    return { make, content }
  }
  const odd = image(512 * 37 + 100)
  const whole = image(64 * 512)
  const blocks = image(9 * 4096 + 700, 4096)
  const zeroes = (lengthBytes: number) => new Uint8Array(lengthBytes)
  const plain = { readOnly: false, blockBytes: 512, serial: '', lifetime: null }
  const pattern = { ...plain, content: patternContent(), readOnly: true, serial: 'PATTERN' }
  const module = `module:${escapePath(path.relative(process.cwd(), EXAMPLE))},sectors=${PATTERN_SECTORS}`
  const bySpec = (spec: () => string) => async (clock: VirtualClock) => {
    const opened = await openDisk(spec(), platformAt(clock))
    if (!opened.ok) throw new Error(opened.error)
    return opened.value
  }
  const file = (make: () => string, kind = 'file', rest = '') =>
    bySpec(() => `${kind}:${escapePath(make())}${rest}`)
  const memory = bySpec(() => 'memory:size=32K,serial=ABCDEFGHIJKLMNOPQRST')
  return [
    {
      name: 'memory',
      kinds: ['memory'],
      model: { ...plain, content: zeroes(32_768), serial: 'ABCDEFGHIJKLMNOPQRST' },
      open: memory,
    },
    {
      name: 'memory in blocks of 4 KiB',
      kinds: ['memory'],
      model: { ...plain, content: zeroes(32_768), blockBytes: 4096, serial: 'x' },
      open: bySpec(() => 'memory:size=32K,block=4K,serial=x'),
    },
    {
      name: 'worn read-only memory',
      kinds: ['memory'],
      model: { ...plain, content: zeroes(16_384), readOnly: true, lifetime: [2, 11, 0] },
      async open(clock) {
        const lifetime = { preEndOfLife: 2, usedTenthsA: 11, usedTenthsB: 12 }
        return new WornDisk(await bySpec(() => 'memory:size=16K,readonly')(clock), lifetime)
      },
    },
    {
      name: 'file of an odd length',
      kinds: ['file'],
      model: { ...plain, content: odd.content },
      open: file(odd.make),
    },
    {
      name: 'file of an odd length in blocks of 4 KiB',
      kinds: ['file'],
      model: { ...plain, content: blocks.content, blockBytes: 4096 },
      open: file(blocks.make, 'file', ',block=4K'),
    },
    {
      name: 'read-only file',
      kinds: ['file'],
      model: { ...plain, content: whole.content, readOnly: true },
      open: file(whole.make, 'file', ',readonly'),
    },
    {
      name: 'asynchronous file',
      kinds: ['file-async'],
      model: { ...plain, content: odd.content },
      open: file(odd.make, 'file-async', ',depth=4'),
    },
    {
      name: 'overlay over a file',
      kinds: ['file', 'overlay'],
      model: { ...plain, content: whole.content },
      open: file(whole.make, 'file', ',readonly | overlay'),
    },
    {
      name: 'delay over memory',
      kinds: ['memory', 'delay'],
      model: { ...plain, content: zeroes(16_384) },
      open: bySpec(() => 'memory:size=16K | delay:us=100'),
    },
    { name: 'example module', kinds: ['module'], model: pattern, open: bySpec(() => module) },
    {
      name: 'overlay over the example module',
      kinds: ['module', 'overlay'],
      model: { ...pattern, readOnly: false },
      open: bySpec(() => `${module} | overlay`),
    },
  ]
}

/** A disk that knows its wear; one of the values is a reserved one, which a device must not repeat. */
class WornDisk implements DiskBackend {
  readonly #disk: DiskBackend
  readonly #lifetime: {
    readonly preEndOfLife: number
    readonly usedTenthsA: number
    readonly usedTenthsB: number
  }

  constructor(disk: DiskBackend, lifetime: WornDisk['lifetime']) {
    this.#disk = disk
    this.#lifetime = lifetime
  }

  get lifetime() {
    return this.#lifetime
  }

  get facts() {
    return { ...this.#disk.facts, lifetime: this.#lifetime }
  }

  submit(io: Parameters<DiskBackend['submit']>[0]): void {
    this.#disk.submit(io)
  }

  watch(listener: Parameters<DiskBackend['watch']>[0]): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    this.#disk.close(finished)
  }
}
