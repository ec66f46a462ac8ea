import { diskContentCases } from './disk-content.ts'
import { diskLifeCases } from './disk-life.ts'
import { diskRangeCases } from './disk-range.ts'
import { type DiskCase, type DiskNeed, type DiskSubject, unmetNeeds } from './disk-subject.ts'

export * from './disk-subject.ts'
export { specSubject } from './spec-subject.ts'

/** What every disk backend promises, family-blind: run over any of them, yours included. */
export const diskBackendCases: readonly DiskCase[] = [
  ...diskRangeCases,
  ...diskContentCases,
  ...diskLifeCases,
]

export type DiskCaseResult =
  | { readonly name: string; readonly verdict: 'passed' }
  | { readonly name: string; readonly verdict: 'failed'; readonly error: unknown }
  | { readonly name: string; readonly verdict: 'not applicable'; readonly unmet: readonly DiskNeed[] }

/** Runs the whole suite over one disk. Never throws: what a case throws is its result. */
export async function runDiskBackendCases(subject: DiskSubject): Promise<DiskCaseResult[]> {
  const results: DiskCaseResult[] = []
  for (const diskCase of diskBackendCases) results.push(await runOne(diskCase, subject))
  return results
}

async function runOne(diskCase: DiskCase, subject: DiskSubject): Promise<DiskCaseResult> {
  const { name } = diskCase
  try {
    const disk = await subject.open()
    const unmet = unmetNeeds(diskCase, disk.facts, subject)
    disk.close(() => {})
    await subject.settle()
    if (unmet.length > 0) return { name, verdict: 'not applicable', unmet }
    await diskCase.run(subject)
    return { name, verdict: 'passed' }
  } catch (error) {
    return { name, verdict: 'failed', error }
  }
}
