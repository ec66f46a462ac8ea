import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BlkFeature, CommonFeature, featuresOfVersion, isVirtioVersion } from '../../protocol/index.ts'
import type { FeatureTable } from '../../protocol/version.ts'
import {
  FEATURE_SET_BITS,
  featureMask,
  featureNames,
  featureSet,
  featureWord,
  hasFeature,
  missingPrerequisite,
  withFeatureWord,
} from '../../protocol/version.ts'

const set = fc.bigInt({ min: 0n, max: 2n ** 128n - 1n })

describe('feature sets', () => {
  it('are read and written 32 bits at a time, four of them', () => {
    fc.assert(
      fc.property(set, fc.nat(3), fc.nat(0xffff_ffff), (features, selector, word) => {
        const words = [0, 1, 2, 3].map((at) => featureWord(features, at))
        expect(words.map((one, at) => BigInt(one) << BigInt(32 * at)).reduce((a, b) => a | b)).toBe(features)
        words[selector] = word
        const changed = withFeatureWord(features, selector, word)
        expect([0, 1, 2, 3].map((at) => featureWord(changed, at))).toEqual(words)
        expect(changed).toBeLessThan(2n ** 128n)
      }),
    )
  })

  it('show 0 past the end and cannot be changed there', () => {
    fc.assert(
      fc.property(set, fc.constantFrom(4, 5, 0xffff_ffff, Number.NaN), (features, selector) => {
        expect(featureWord(features, selector)).toBe(0)
        expect(withFeatureWord(features, selector, 0xffff_ffff)).toBe(features)
      }),
    )
  })

  it('hold exactly the bits they were made of', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(FEATURE_SET_BITS - 1)), (bits) => {
        const features = featureSet(bits)
        for (let bit = 0; bit < FEATURE_SET_BITS; bit++) {
          expect(hasFeature(features, bit)).toBe(bits.includes(bit))
        }
        expect(features).toBe(bits.map(featureMask).reduce((a, b) => a + b, 0n))
      }),
    )
  })

  it('are named by the tables given, and by number otherwise', () => {
    const features = featureSet([BlkFeature.RO.bit, CommonFeature.VERSION_1.bit, 70, 127])
    expect(featureNames(features, BlkFeature, CommonFeature)).toEqual(['RO', 'VERSION_1', '70', '127'])
    expect(featureNames(features)).toEqual(['5', '32', '70', '127'])
    expect(featureNames(0n, BlkFeature)).toEqual([])
  })
})

describe('missingPrerequisite', () => {
  const table = {
    BASE: { bit: 0, since: '1', meaning: 'base' },
    OTHER: { bit: 70, since: '1', meaning: 'other' },
    NEEDY: { bit: 1, since: '1', meaning: 'needs both', needs: ['BASE', 'OTHER'] },
    FOREIGN: { bit: 2, since: '1', meaning: 'needs a bit of another table', needs: ['ELSEWHERE'] },
  } as const satisfies FeatureTable

  it.each<[string, readonly number[], { feature: string; needs: string } | null]>([
    ['nothing set', [], null],
    ['only what is needed', [0, 70], null],
    ['everything', [0, 1, 70], null],
    ['the first one missing', [1, 70], { feature: 'NEEDY', needs: 'BASE' }],
    ['the second one missing', [0, 1], { feature: 'NEEDY', needs: 'OTHER' }],
    ['a prerequisite of another table', [2], null],
  ])('judges %s', (_what, bits, missing) => {
    expect(missingPrerequisite(featureSet(bits), table)).toEqual(missing)
  })
})

describe('featuresOfVersion', () => {
  it('grows with the version by exactly what that version introduced', () => {
    const names = (version: '1.0' | '1.1' | '1.2' | '1.3') =>
      featureNames(featuresOfVersion(version, BlkFeature), BlkFeature, CommonFeature)
    expect(names('1.0')).toEqual([
      ...['SIZE_MAX', 'SEG_MAX', 'GEOMETRY', 'RO', 'BLK_SIZE', 'FLUSH', 'TOPOLOGY', 'CONFIG_WCE'],
      ...['INDIRECT_DESC', 'EVENT_IDX', 'VERSION_1'],
    ])
    expect(names('1.1')).not.toContain('LIFETIME')
    expect(names('1.1')).toEqual(expect.arrayContaining(['DISCARD', 'WRITE_ZEROES', 'RING_PACKED']))
    expect(names('1.2')).toEqual(expect.arrayContaining(['LIFETIME', 'SECURE_ERASE', 'RING_RESET']))
    expect(names('1.2')).not.toContain('ZONED')
    expect(names('1.3')).toEqual(expect.arrayContaining(['ZONED', 'ADMIN_VQ']))
  })

  it('knows the versions by name', () => {
    expect(['1.0', '1.1', '1.2', '1.3'].every(isVirtioVersion)).toBe(true)
    expect(['', '0.9', '1', '1.4', '1.00'].some(isVirtioVersion)).toBe(false)
  })
})
