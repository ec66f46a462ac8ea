import { beforeAll, describe, expect, it } from 'vitest'
import { isLayout } from '../../protocol/layout.ts'
import { availRingBytes, needEvent, usedRingBytes } from '../../protocol/virtio/ring.ts'
import { C_STRUCTS, NO_WIRE_VALUE, NOT_IN_LINUX } from './linux-names.ts'
import {
  askLinux,
  declarations,
  EVENT_TRIPLES,
  type LinuxUapi,
  missingCompiler,
  recordedUapi,
  virtioExports,
} from './linux-uapi.ts'
import { peerOrSkip } from './peer.ts'

const exports = await virtioExports()
const ours = declarations(exports)
const linux = recordedUapi()

function owner(name: string): string {
  return name.split('.')[0] ?? name
}

/** Names that some list accounts for without a value of Linux': themselves, their field or their owner. */
function excused(name: string): boolean {
  const parts = name.split('.')
  const prefixes = parts.map((_, index) => parts.slice(0, index + 1).join('.'))
  return prefixes.some((one) => one in NOT_IN_LINUX || one in NO_WIRE_VALUE)
}

describe("the declarations of protocol/virtio against Linux' headers", () => {
  it('reads declarations of every kind', () => {
    expect(ours.get('BlkConfig.capacity')).toEqual([0, 8])
    expect(ours.get('BlkType.OUT')).toBe(1)
    expect(ours.get('CommonFeature.VERSION_1')).toBe(32)
    expect(ours.get('USED_ALIGN')).toBe(4)
    expect(ours.size).toBeGreaterThan(120)
  })

  it('leaves none out: each is compared, or listed with a reason', () => {
    expect([...ours.keys()].filter((name) => !(name in linux.values) && !excused(name))).toEqual([])
  })

  it('excuses none that is compared, and names nothing that does not exist', () => {
    const both = Object.keys(linux.values).filter((name) => name in NOT_IN_LINUX)
    const known = (name: string) => ours.has(name) || exports.has(name)
    const stale = [...Object.keys(NOT_IN_LINUX), ...Object.keys(NO_WIRE_VALUE)].filter((one) => !known(one))
    const gone = Object.keys(linux.values).filter((one) => !known(one))
    expect({ both, stale, gone }).toEqual({ both: [], stale: [], gone: [] })
  })

  it('agree: offset and bytes of every field, and every constant', () => {
    const compared = [...ours].filter(([name]) => name in linux.values)
    const recorded = compared.map(([name]) => [name, linux.values[name]])
    expect(Object.fromEntries(compared)).toEqual(Object.fromEntries(recorded))
  })

  it.each(Object.keys(C_STRUCTS))('agree: bytes of %s', (name) => {
    const layout = exports.get(name)
    if (!isLayout(layout)) return expect.fail(`${name} is no structure`)
    // Linux 6.1 ends where VIRTIO 1.2 does.
    expect(layout.$sizes?.['1.2'] ?? layout.$size).toBe(linux.values[name])
  })

  it('agree: bytes of both rings with their event words', () => {
    const rings = linux.rings.map(([size]) => [size, availRingBytes(size), usedRingBytes(size)])
    expect(rings).toEqual(linux.rings)
  })

  it("agree: needEvent says what Linux' vring_need_event says, around every edge", () => {
    expect(linux.needEvent).toHaveLength(EVENT_TRIPLES.length)
    expect(linux.needEvent).toMatch(/0.*1/)
    const digits = EVENT_TRIPLES.map(([event, now, before]) => (needEvent(event, now, before) ? '1' : '0'))
    expect(digits.join('')).toBe(linux.needEvent)
  })
})

describe("Linux' headers say today what was recorded", () => {
  const missing = missingCompiler()

  it('are present, or their absence is said', (test) => {
    peerOrSkip(test, "Linux' headers", missing)
  })

  describe.runIf(missing === null)('asked again', () => {
    let asked: LinuxUapi = linux
    let newer: LinuxUapi = linux
    beforeAll(() => {
      asked = askLinux([...ours.keys()].filter((name) => !excused(name)))
      // Fields of a structure cannot be asked for by #ifdef, macros can.
      newer = askLinux([...ours.keys()].filter((name) => !(owner(name) in C_STRUCTS)))
    })

    it('with the same values', () => {
      expect({ ...asked, package: '' }).toEqual({ ...linux, package: '' })
    })

    it('and what newer headers add agrees too', () => {
      const added = Object.entries(newer.values).filter(
        ([name, value]) => name in NOT_IN_LINUX && value !== null,
      )
      expect(added).toEqual(added.map(([name]) => [name, ours.get(name)]))
    })
  })
})
