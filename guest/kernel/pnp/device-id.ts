/** MAX_DEVICE_ID_LEN, its null included. */
const ID_LENGTH_MAX = 200

/** What an ID may be made of: printable ASCII without space and comma. */
function isIdText(text: string): boolean {
  if (text.length === 0 || text.length >= ID_LENGTH_MAX) return false
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit <= 0x20 || unit > 0x7f || unit === 0x2c) return false
  }
  return true
}

/**
 * What no bus driver may answer, PNP_DETECTED_FATAL_ERROR 3: a text that does not end in time, or holds what is
 * neither printable nor a space, or a comma. (A space is no mistake that stops the system, and still no ID.)
 */
export function isBrokenId(text: string | null): boolean {
  if (text === null || text.length >= ID_LENGTH_MAX) return true
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit < 0x20 || unit > 0x7f || unit === 0x2c) return true
  }
  return false
}

/** `enumerator\device`: one backslash, something on both sides. */
export function isDeviceId(text: string): boolean {
  const at = text.indexOf('\\')
  return isIdText(text) && at > 0 && at < text.length - 1 && text.indexOf('\\', at + 1) < 0
}

export function isInstanceId(text: string): boolean {
  return isIdText(text) && !text.includes('\\')
}

/** A hardware or compatible ID. */
export function isHardwareId(text: string): boolean {
  return isIdText(text)
}

/**
 * The instance of a device whose bus only promises that it is unique on that bus: its parent's identity in
 * front, so that it is unique on the machine.
 */
export function uniqueInstance(parentPath: string, depth: number, instanceId: string): string {
  // FNV-1a, 32 bits.
  let hash = 0x811c9dc5
  const folded = parentPath.toUpperCase()
  for (let at = 0; at < folded.length; at++) {
    hash = Math.imul(hash ^ folded.charCodeAt(at), 0x01000193) >>> 0
  }
  return `${depth}&${hash.toString(16)}&0${instanceId === '' ? '' : `&${instanceId}`}`
}
