import fs from 'node:fs'

/** This package's version. Its package.json stands above the sources, and one higher above the build. */
export const VERSION: string = findVersion(['../package.json', '../../package.json'])

function findVersion(places: readonly string[]): string {
  for (const place of places) {
    try {
      const found: unknown = JSON.parse(fs.readFileSync(new URL(place, import.meta.url), 'utf8'))
      if (typeof found !== 'object' || found === null) continue
      const { name, version } = found as { readonly name?: unknown; readonly version?: unknown }
      if (name === 'paravane' && typeof version === 'string') return version
    } catch {
      // Not here: the other place is looked at next.
    }
  }
  throw new Error('the package.json of paravane is not where its files lie')
}
