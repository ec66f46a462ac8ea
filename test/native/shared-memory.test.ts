import { constants } from 'node:buffer'
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Descriptor, lengthOf, openDescriptors } from '../../native/descriptor.ts'
import { Mapping, map, reservedBytes } from '../../native/mapping.ts'
import { NativeError } from '../../native/native-error.ts'
import { SharedMemory, seals } from '../../native/shared-memory.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { nativeOrSkip } from './native-or-skip.ts'

const PAGE = 4096

function mapped(result: Mapping | NativeError): Mapping {
  if (result instanceof NativeError) throw result
  return result
}

function collect(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

describe('a descriptor', () => {
  nativeOrSkip()

  it('is closed exactly once, whatever else is asked of it', () => {
    const before = openDescriptors()
    const one = new Descriptor(openSync('/dev/null', 'r'))
    const { number } = one
    const two = one.duplicate()
    expect(openDescriptors()).toBe(before + 2)
    expect(two.number).not.toBe(number)
    one.close()
    expect(one.closed).toBe(true)
    expect(() => one.close()).toThrow('closed descriptor')
    expect(() => one.number).toThrow('closed descriptor')
    one[Symbol.dispose]()
    // The number is free again: a second close would hit whoever has it now.
    const next = new Descriptor(openSync('/dev/null', 'r'))
    expect(next.number).toBe(number)
    expect(readSync(next.number, new Uint8Array(1))).toBe(0)
    next.close()
    two.close()
  })

  it('is open after it was given away, and no longer counted', () => {
    const one = new Descriptor(openSync('/dev/null', 'r'))
    const before = openDescriptors()
    const number = one.release()
    expect(openDescriptors()).toBe(before - 1)
    expect(one.closed).toBe(true)
    closeSync(number)
  })

  it('is not closed while a loop watches it', () => {
    const one = new Descriptor(openSync('/dev/null', 'r'))
    const unpin = one.pin()
    expect(() => one.close()).toThrow('watches')
    expect(one.closed).toBe(false)
    unpin()
    one.close()
  })
})

describe('shared memory', () => {
  nativeOrSkip()

  it('is zeroed, as long as was asked for, and its length is fixed where it is sealed', () => {
    for (const sealed of [true, false]) {
      using memory = SharedMemory.create('test', 3 * PAGE, { sealed })
      using mapping = memory.map()
      expect(lengthOf(memory.descriptor)).toBe(3 * PAGE)
      expect(mapping.bytes).toEqual(new Uint8Array(3 * PAGE))
      expect(seals(memory.descriptor)).toMatchObject({
        shrink: sealed,
        grow: sealed,
        seal: sealed,
        write: false,
      })
      const resize = (lengthBytes: number) => () => ftruncateSync(memory.descriptor.number, lengthBytes)
      if (sealed) {
        expect(resize(PAGE)).toThrow('EPERM')
        expect(resize(8 * PAGE)).toThrow('EPERM')
      } else expect(resize(8 * PAGE)).not.toThrow()
      expect(lengthOf(memory.descriptor)).toBe(sealed ? 3 * PAGE : 8 * PAGE)
    }
  })

  it('holds the same bytes for two processes, as guest memory', () => {
    using memory = SharedMemory.create('test', 2 * PAGE)
    using mapping = memory.map()
    const guest = new GuestMemory([{ base: gpa(0), bytes: mapping.bytes, shared: true }])
    const window = guest.window(gpa(PAGE), PAGE, 8)
    mapping.bytes.set([1, 2, 3], PAGE)
    const script = `
      const fs = require('node:fs')
      const seen = Buffer.alloc(3)
      fs.readSync(3, seen, 0, 3, ${PAGE})
      fs.writeSync(3, Buffer.from(seen.map((byte) => byte * 2)), 0, 3, ${PAGE + 8})`
    const stdio = ['ignore', 'inherit', 'inherit', memory.descriptor.number] as const
    expect(spawnSync(process.execPath, ['-e', script], { stdio: [...stdio] }).status).toBe(0)
    expect([0, 1, 2].map((at) => window?.view.getUint8(8 + at))).toEqual([2, 4, 6])
  })

  it('reads as zeros through every view once it is revoked, and takes nothing more', () => {
    using memory = SharedMemory.create('test', 2 * PAGE)
    using kept = memory.map()
    const mapping = memory.map()
    const early = mapping.bytes.subarray(PAGE - 2, PAGE + 2)
    const other = new DataView(mapping.bytes.buffer)
    mapping.bytes.fill(7)
    mapping.revoke()
    mapping.revoke()
    expect(mapping.revoked).toBe(true)
    expect([...early]).toEqual([0, 0, 0, 0])
    expect(other.getUint8(0)).toBe(0)
    early.fill(9)
    other.setUint32(0, 0xffff_ffff)
    expect(kept.bytes.every((byte) => byte === 7)).toBe(true)
    mapping.close()
  })

  it('longer than any buffer is not mapped, whoever shares it: nothing of it is touched or paid for', () => {
    const lengthBytes = 2 ** 40
    using memory = SharedMemory.create('test', lengthBytes)
    const before = reservedBytes()
    const result = map(memory.descriptor, 0, lengthBytes, { write: true })
    if (constants.MAX_LENGTH < lengthBytes) {
      expect(result).toMatchObject({ call: 'mmap', errno: 'EFBIG' })
      expect(reservedBytes()).toBe(before)
    } else {
      const whole = mapped(result)
      expect(whole.bytes.length).toBe(lengthBytes)
      whole.revoke()
    }
  })

  it('gives addresses back only when no view is left', async () => {
    using memory = SharedMemory.create('test', 1024 * PAGE)
    const turns = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        collect()
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    // What earlier tests left behind.
    await turns()
    const before = reservedBytes()
    let view: Uint8Array | null = null
    const make = (): void => {
      const mapping = memory.map()
      view = mapping.bytes.subarray(5, 6)
      mapping.close()
    }
    make()
    await turns()
    expect(reservedBytes()).toBe(before + 1024 * PAGE)
    expect((view as Uint8Array | null)?.[0]).toBe(0)
    view = null
    await turns()
    expect(reservedBytes()).toBe(before)
  })

  it('stays where it is while the collector moves everything else', () => {
    using memory = SharedMemory.create('test', 16 * PAGE)
    using mapping = memory.map()
    const content = Uint8Array.from(mapping.bytes, (_, i) => (i * 31) & 0xff)
    mapping.bytes.set(content)
    for (let round = 0; round < 5; round++) {
      const garbage = Array.from({ length: 2000 }, (_, i) => new Uint8Array(1024).fill(i))
      expect(garbage.length).toBe(2000)
      collect()
      expect(Buffer.compare(mapping.bytes, content)).toBe(0)
    }
  })
})

describe('a mapping', () => {
  nativeOrSkip()

  it('shows the part that was asked for, wherever in a page it begins, and refuses what the file has not', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'paravane-map-'))
    const file = path.join(folder, 'file')
    const content = Uint8Array.from({ length: 3 * PAGE + 100 }, (_, i) => (i * 7 + (i >> 8)) & 0xff)
    writeFileSync(file, content)
    try {
      using descriptor = new Descriptor(openSync(file, 'r+'))
      const limit = content.length + 2 * PAGE
      fc.assert(
        fc.property(
          fc.integer({ min: -2, max: limit }),
          fc.integer({ min: -2, max: limit }),
          (offset, length) => {
            const result = map(descriptor, offset, length, { write: false })
            const within = offset >= 0 && length > 0 && offset + length <= content.length
            expect(result instanceof Mapping).toBe(within)
            if (!(result instanceof Mapping)) return
            expect(Buffer.compare(result.bytes, content.subarray(offset, offset + length))).toBe(0)
            result.close()
          },
        ),
      )
      for (const odd of [Number.NaN, 0.5, 2 ** 53, Number.POSITIVE_INFINITY]) {
        expect(map(descriptor, odd, 1, { write: true })).toBeInstanceOf(NativeError)
        expect(map(descriptor, 0, odd, { write: true })).toBeInstanceOf(NativeError)
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  it('writes to the file only where that was asked for', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'paravane-map-'))
    const file = path.join(folder, 'file')
    writeFileSync(file, new Uint8Array(PAGE))
    try {
      using descriptor = new Descriptor(openSync(file, 'r+'))
      using mine = mapped(map(descriptor, 0, PAGE, { write: false }))
      mine.bytes[0] = 1
      expect(readFileSync(file)[0]).toBe(0)
      using shared = mapped(map(descriptor, 0, PAGE, { write: true }))
      shared.bytes[0] = 2
      expect(readFileSync(file)[0]).toBe(2)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  it('is refused, not tried, of what is no file', () => {
    using descriptor = new Descriptor(openSync('/dev/zero', 'r+'))
    expect(map(descriptor, 0, PAGE, { write: true })).toMatchObject({ call: 'mmap', errno: 'ENODEV' })
    expect(lengthOf(descriptor)).toBeInstanceOf(NativeError)
  })
})
