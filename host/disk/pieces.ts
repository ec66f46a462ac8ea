/**
 * The part of lent views from `skip` on: at most `most` bytes in at most `count` pieces, none of them empty.
 * The views are views of the same memory.
 */
export function pieces(
  lent: readonly Uint8Array[],
  skip: number,
  most = Number.POSITIVE_INFINITY,
  count = Number.POSITIVE_INFINITY,
): Uint8Array[] {
  const found: Uint8Array[] = []
  let before = skip
  let room = most
  for (const view of lent) {
    if (!(room > 0 && found.length < count)) break
    if (before >= view.length) {
      before -= view.length
      continue
    }
    const bytes = Math.min(view.length - before, room)
    found.push(bytes === view.length ? view : view.subarray(before, before + bytes))
    before = 0
    room -= bytes
  }
  return found
}
