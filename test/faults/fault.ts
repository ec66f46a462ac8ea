/** A change of one place in a source file. */
export interface Patch {
  /** From the top of the repository. */
  readonly file: string
  /** Occurs exactly once in it, or loading fails. */
  readonly find: string
  readonly replace: string
}

/** A defect on purpose, which the case of its clause has to see. */
export interface Fault {
  /** Names it in a module's address; unique. */
  readonly id: string
  readonly clause: string
  readonly patches: readonly Patch[]
}

/** A fault of one patch. */
export function fault(clause: string, file: string, find: string, replace: string): Fault {
  return { id: clause, clause, patches: [{ file, find, replace }] }
}

/** Another fault for a clause that says more than one thing. */
export function another(what: string, one: Fault): Fault {
  return { ...one, id: `${one.clause}-${what}` }
}

/** @throws when `find` does not occur exactly once: the source changed, and the fault proves nothing any more. */
export function patched(text: string, { file, find, replace }: Patch): string {
  const count = text.split(find).length - 1
  if (count !== 1) throw new Error(`a seeded fault finds its place ${count} times in ${file}: ${find}`)
  return text.replace(find, () => replace)
}
