const BINARY = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `5.00 GiB`, `512 bytes`. */
export function bytesText(bytes: number): string {
  let unit = 0
  let value = bytes
  while (value >= 1024 && unit < BINARY.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? String(value) : value.toFixed(2)} ${BINARY[unit] ?? ''}`
}

/** `12,345`: whole numbers in groups, the same in every locale. */
export function groupedText(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ',')
}

/** `1,049 MB/s`, or a dash when nothing was measured. */
export function rateText(value: number | null, unit: string): string {
  return value === null ? '-' : `${groupedText(value)} ${unit}`
}
