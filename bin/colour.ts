import { Chalk, type ChalkInstance, supportsColor, supportsColorStderr } from 'chalk'

/** Colours where the stream shows them, and none when NO_COLOR is set to anything (no-color.org). */
export function coloursFor(stream: 'stdout' | 'stderr'): ChalkInstance {
  const support = stream === 'stdout' ? supportsColor : supportsColorStderr
  const refused = (process.env['NO_COLOR'] ?? '') !== ''
  return new Chalk({ level: refused || !support ? 0 : support.level })
}
