import { describe, expect, it } from 'vitest'
import { REQUIREMENTS } from '../../protocol/requirement.ts'
import type { Violation } from '../../protocol/violation.ts'
import { explain, ViolationLog } from '../../protocol/violation.ts'

const violation = (seen: number, rule: Violation['rule'] = 'split.head-range'): Violation => ({
  rule,
  side: 'driver',
  queue: 0,
  at: 0x1000,
  seen,
  expected: 256,
})

describe('ViolationLog', () => {
  it('counts every violation and keeps the first sixteen of each rule', () => {
    const log = new ViolationLog()
    for (let seen = 0; seen < 40; seen++) log.record(violation(seen))
    for (let seen = 0; seen < 3; seen++) log.record(violation(seen, 'block.range'))
    expect(log.total).toBe(43)
    expect(log.count('split.head-range')).toBe(40)
    expect(log.count('block.range')).toBe(3)
    expect(log.count('block.read-only')).toBe(0)
    const [first, second] = log.entries()
    expect(first?.rule).toBe('split.head-range')
    expect(first?.count).toBe(40)
    expect(first?.first.map(({ seen }) => seen)).toEqual(Array.from({ length: 16 }, (_, at) => at))
    expect(second?.first).toEqual([0, 1, 2].map((seen) => violation(seen, 'block.range')))
    expect(log.entries()).toHaveLength(2)
  })

  it('is empty at first', () => {
    expect(new ViolationLog().entries()).toEqual([])
    expect(new ViolationLog().total).toBe(0)
  })
})

describe('explain', () => {
  it('says who broke what, where, and what was seen', () => {
    expect(explain(violation(300))).toBe(
      'driver broke split.head-range (queue 0, at 0x1000): a head is a descriptor of this queue; saw 300, ' +
        'limit 256 [VIRTIO 1.2 section 2.7.13.2]',
    )
    expect(explain({ ...violation(1), queue: null })).toContain('split.head-range (at 0x1000): ')
    expect(explain({ ...violation(1), at: null })).toContain('split.head-range (queue 0): ')
    expect(explain({ ...violation(1), at: null, queue: null })).toContain('split.head-range: ')
  })
})

describe('REQUIREMENTS', () => {
  it.each(Object.entries(REQUIREMENTS))(
    '%s has a name of its own, a text and a source',
    (id, requirement) => {
      expect(id).toMatch(/^[a-z]+\.[a-z0-9-]+$/)
      expect(requirement.text.length).toBeGreaterThan(10)
      expect(requirement.text).not.toMatch(/\.$/)
      expect(requirement.ref).toMatch(/^[A-Z].* section \d|^vhost-user, [A-Z]/)
      expect(['driver', 'device', 'front-end', 'back-end', 'both']).toContain(requirement.party)
    },
  )

  it('states each rule once', () => {
    const texts = Object.values(REQUIREMENTS).map(({ text }) => text)
    expect(new Set(texts).size).toBe(texts.length)
  })
})
