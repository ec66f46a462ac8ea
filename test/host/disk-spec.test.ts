import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseSize, parseWhole } from '../../host/disk/option.ts'
import { DISK_KINDS, readDiskSpec } from '../../host/disk/registry.ts'
import { type DiskSpec, formatSpec, parseSpec, specFromJson } from '../../host/disk/spec.ts'

const kindName = fc.stringMatching(/^[a-z][a-z0-9-]{0,6}$/)
const keyName = fc
  .stringMatching(/^[A-Za-z][A-Za-z0-9_-]{0,6}$/)
  .filter((key) => key !== 'kind' && key !== 'over')
/** Texts made of what the syntax gives meaning to, as well as of anything else. */
const value = fc.oneof(
  fc.string({ unit: fc.constantFrom(',', '|', '=', '\\', ' ', '\t', ':', 'a', '"', '{'), maxLength: 12 }),
  fc.string(),
)
const spec: fc.Arbitrary<DiskSpec> = fc.record({
  layers: fc.array(
    fc.record({
      kind: kindName,
      argument: fc.option(
        value.filter((text) => text !== ''),
        { nil: undefined },
      ),
      values: fc
        .uniqueArray(fc.tuple(keyName, value), { selector: ([key]) => key, maxLength: 4 })
        .map((entries) => new Map(entries)),
    }),
    { minLength: 1, maxLength: 4 },
  ),
})

function parsed(text: string): DiskSpec {
  const result = parseSpec(text)
  if (!result.ok) throw new Error(result.error)
  return result.value
}

function read(text: string): DiskSpec {
  const result = readDiskSpec(text)
  if (!result.ok) throw new Error(result.error)
  return result.value
}

function errorOf(text: string): string {
  const result = readDiskSpec(text)
  return result.ok ? `accepted: ${formatSpec(result.value)}` : result.error
}

const layer = (kind: string, argument: string | undefined, values: Record<string, string> = {}) => ({
  kind,
  argument,
  values: new Map(Object.entries(values)),
})

describe('a disk spec', () => {
  test('is read back the same from its canonical text', () => {
    fc.assert(
      fc.property(spec, (original) => {
        expect(parsed(formatSpec(original))).toEqual(original)
      }),
      { numRuns: 1000 },
    )
  })

  test('never throws, and any complaint is one line', () => {
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom(...'a:,|=\\ \n{}"1'), maxLength: 30 }),
      fc.json(),
    )
    fc.assert(
      fc.property(text, (anything) => {
        const result = readDiskSpec(anything)
        if (!result.ok) expect(result.error).toMatch(/^[^\n\r]+$/)
      }),
      { numRuns: 1000 },
    )
  })

  test('has a kind, an argument, options and wrappers', () => {
    expect(parsed('file:x.img,readonly,serial=A1 | overlay | delay:ms=5').layers).toEqual([
      layer('file', 'x.img', { readonly: 'yes', serial: 'A1' }),
      layer('overlay', undefined),
      layer('delay', undefined, { ms: '5' }),
    ])
    expect(parsed('memory').layers).toEqual([layer('memory', undefined)])
    expect(parsed('memory:').layers).toEqual([layer('memory', undefined)])
    expect(parsed('memory:size=').layers).toEqual([layer('memory', undefined, { size: '' })])
  })

  test('takes a colon in an argument, and white space inside one but not around it', () => {
    expect(parsed(' file : a b:c.img , serial = x y ').layers).toEqual([
      layer('file', 'a b:c.img', { serial: 'x y' }),
    ])
  })

  test('has a backslash escape comma, pipe, equals, space and itself, and stand for itself elsewhere', () => {
    expect(parsed('file:a\\,b\\|c\\=d\\\\e').layers).toEqual([layer('file', 'a,b|c=d\\e')])
    expect(parsed('file:\\ a\\ ').layers).toEqual([layer('file', ' a ')])
    expect(parsed('file:C:\\disks\\a.img').layers).toEqual([layer('file', 'C:\\disks\\a.img')])
    expect(parsed('file:a\\').layers).toEqual([layer('file', 'a\\')])
  })

  test('may be JSON, and is the same then', () => {
    const json = '{"kind":"memory","size":"1M","readonly":true,"block":512,"physical":"4K"}'
    expect(read(json)).toEqual(read('memory:size=1M,readonly,block=512,physical=4K'))
    expect(read('{"kind":"file","path":"a,b=c.img","readonly":false}')).toEqual(
      read('file:a\\,b\\=c.img,readonly=no'),
    )
    expect(read('file:path=x.img')).toEqual(read('file:x.img'))
    const nested = specFromJson({ kind: 'b', ms: 5, over: { kind: 'a', over: { kind: 'c' } } })
    expect(nested).toEqual({ ok: true, value: parsed('c | a | b:ms=5') })
  })

  test('gives a kind without argument its bare flag', () => {
    expect(read('memory:readonly')).toEqual(read('memory:readonly=yes'))
  })

  test.each(DISK_KINDS.map((kind) => [kind.kind, kind.example] as const))(
    'example of %s is a spec in canonical form',
    (_kind, example) => {
      expect(formatSpec(read(example))).toBe(example)
    },
  )

  test.each([
    ['', 'disk spec: no kind at position 1; a spec is kind:argument,key=value'],
    ['memory |', 'disk spec: no kind at position 9; a spec is kind:argument,key=value'],
    ['x.img', 'disk spec: "x.img" at position 1 is not a kind\'s name; for a file write "file:x.img"'],
    ['memory,size=1M', 'disk spec: "," at position 7; ":" follows the kind memory'],
    ['memory:size=1M,size=2M', 'disk spec: memory: option size at position 16 is given twice'],
    ['memory:serial=a=b', 'disk spec: memory: "=" at position 16 in the value of serial; write \\= for one'],
    ['memory:,=5', 'disk spec: memory: "" at position 9 is not an option\'s name; options are key=value'],
    ['memory:over=1', 'disk spec: memory: "over" at position 8 cannot be an option'],
    ['{"kind":"memory","size":[1]}', 'disk spec: memory: option size takes a text, a number, true or false'],
    ['{"kind":1}', 'disk spec: "kind" is "1"; it takes a name such as "memory" or "file"'],
    ['{"kind":"delay","over":7}', 'disk spec: a layer is "7"; it takes {"kind":…,"over":…}'],
    [
      'file',
      'file: needs its path (an image file or a block device; relative to the current directory), such as "file:disk.img"',
    ],
    [
      'memory:hello',
      'memory: takes no argument, but has "hello"; its options are size, limit, block, physical, readonly, serial',
    ],
    [
      'memory:sise=1M',
      'memory: no option "sise" (did you mean "size"?); its options are size, limit, block, physical, readonly, serial',
    ],
    ['file:a,path=b', 'file: has its path twice, bare and as path='],
    ['memory | file:x', 'file: a source of data stands first; it cannot be piped after memory'],
    [
      'vhost-user:s | delay:ms=1',
      'delay: cannot be piped after vhost-user, which is a device and has its disk elsewhere',
    ],
    ['memory | vhost-user:s', 'vhost-user: is a device; it cannot be piped after memory'],
  ])('%j is refused in one line', (text, message) => {
    expect(errorOf(text)).toBe(message)
  })

  test('names the kinds there are, and the nearest, when one is unknown', () => {
    const message = errorOf('memry:size=1M')
    expect(message).toContain('no kind "memry" (did you mean "memory"?); kinds are memory, file')
  })

  test('is refused when it is endless', () => {
    expect(errorOf(new Array(65).fill('memory').join('|'))).toContain('more than 64 layers')
  })
})

describe('a size', () => {
  test.each([
    ['0', 0],
    ['512', 512],
    ['1K', 1024],
    ['64M', 64 * 2 ** 20],
    ['5G', 5 * 2 ** 30],
    ['8191T', 8191 * 2 ** 40],
    ['8P', 2 ** 53],
    ['9007199254740992', 2 ** 53],
    ['9007199254740993', null],
    ['9P', null],
    ['', null],
    ['M', null],
    ['1k', null],
    ['1MB', null],
    ['1.5G', null],
    ['0x10', null],
    ['1e3', null],
    [' 1', null],
    ['-1', null],
    ['99999999999999999999999999', null],
  ])('%j is %d', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes)
  })

  test('or a whole number is nothing but digits', () => {
    expect(parseWhole('12')).toBe(12)
    for (const wrong of ['12abc', '', ' 12', '+1', '1_000', '9007199254740992'])
      expect(parseWhole(wrong)).toBe(null)
  })
})
