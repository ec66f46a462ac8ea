/** PNP_DETECTED_FATAL_ERROR (0xCA), its first parameter: what a bus driver must never do. */
export const PnpFatal = {
  /** Two PDOs of one bus with one identity. */
  DUPLICATE_PDO: 1,
  NOT_A_PDO: 2,
  /** An ID that is not terminated, too long, or holds what no ID holds. */
  BROKEN_ID: 3,
  DELETED_PDO: 4,
  FREED_PDO: 5,
  NULL_PDO: 8,
} as const
