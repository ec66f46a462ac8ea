import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { noise } from '../conformance/disk-backend.ts'
import { scratch } from '../host/disk-subjects.ts'
import { readText } from '../source-text.ts'

const { directory, remove } = scratch()
afterAll(remove)

/** The TypeScript of a README, one text a block. */
function snippets(file: string): string[] {
  return [...readText(file).matchAll(/^```ts\n(.*?)^```/gms)].map(([, text]) => text ?? '')
}

/** Runs a snippet in a folder of its own, where `disk.img` is; what it prints, and what it says of itself. */
async function run(snippet: string, name: string): Promise<unknown[][]> {
  const bench = pathToFileURL(path.resolve('bench/index.ts')).href
  fs.writeFileSync(path.join(directory, 'disk.img'), noise(1_000_448, 1))
  const image = path.join(directory, 'disk.img')
  const file = path.join(directory, `${name}.ts`)
  const text = snippet
    .replaceAll("'paravane/bench'", `'${bench}'`)
    .replaceAll('file:disk.img', `file:${image}`)
  const heard = 'const console = { log: (...said) => globalThis.printed.push(said) }\n'
  fs.writeFileSync(file, heard + text)
  const printed: unknown[][] = []
  Object.assign(globalThis, { printed })
  await import(pathToFileURL(file).href)
  return printed
}

test('the ten lines of the README build a bench, read a file, inject a fault and look at the trace', async () => {
  const [snippet = ''] = snippets('README.md')
  expect(
    snippet
      .trimEnd()
      .split('\n')
      .filter((line) => line !== ''),
  ).toHaveLength(10)
  const [[length] = [], [lines] = []] = await run(snippet, 'readme')
  expect(length).toBe(4096)
  const events = (lines as string[]).map((line) => JSON.parse(line))
  // Asked, failed, asked again: the application never noticed.
  expect(events).toMatchObject([
    { name: 'block', device: 'disk0', sector: 0 },
    { name: 'fault', path: 'disk0', op: 'read', offset: 0, effect: 'medium-error' },
    { name: 'block', device: 'disk0', sector: 0 },
  ])
})

test('the example of bench/README.md does what it says', async () => {
  const [snippet = ''] = snippets('bench/README.md')
  const [[byte, partitions, verified, problems] = []] = await run(snippet, 'bench')
  expect([byte, partitions, verified]).toEqual([7, [], false])
  expect(problems).toMatchObject([{ disk: 'disk0', kind: 'never-answered' }])
})
