const LONGEST = 80

/** A user's text in a message: one line whatever it holds, and not longer than a line can be. */
export function quote(text: string): string {
  return JSON.stringify(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text)
}

/** A message that came from elsewhere, made one line. */
export function oneLine(message: string): string {
  const flat = message.replace(/\s+/g, ' ').trim()
  return flat.length > 4 * LONGEST ? `${flat.slice(0, 4 * LONGEST)}…` : flat
}

/** ` (did you mean "x"?)` for the nearest of `words` within two edits, else nothing. */
export function didYouMean(word: string, words: Iterable<string>): string {
  let best = ''
  let bestEdits = Math.min(2, Math.floor(word.length / 2)) + 1
  for (const candidate of words) {
    const edits = editDistance(word.slice(0, LONGEST), candidate)
    if (edits < bestEdits) {
      best = candidate
      bestEdits = edits
    }
  }
  return best === '' ? '' : ` (did you mean "${best}"?)`
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      const changed = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1)
      next.push(Math.min(changed, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
