/** CM_PROB_* (cfg.h): why a device does not work, as Device Manager numbers it. */
export const Problem = {
  NOT_CONFIGURED: 1,
  OUT_OF_MEMORY: 3,
  INVALID_DATA: 9,
  FAILED_START: 10,
  NORMAL_CONFLICT: 12,
  DISABLED: 22,
  DEVICE_NOT_THERE: 24,
  FAILED_INSTALL: 28,
  HARDWARE_DISABLED: 29,
  FAILED_ADD: 31,
  DISABLED_SERVICE: 32,
  TRANSLATION_FAILED: 33,
  FAILED_DRIVER_ENTRY: 37,
  DRIVER_FAILED_PRIOR_UNLOAD: 38,
  DRIVER_SERVICE_KEY_INVALID: 40,
  DUPLICATE_DEVICE: 42,
  FAILED_POST_START: 43,
  HELD_FOR_EJECT: 47,
} as const
export type Problem = (typeof Problem)[keyof typeof Problem]

const TEXTS: { readonly [problem in Problem]: string } = {
  [Problem.NOT_CONFIGURED]: 'not configured',
  [Problem.OUT_OF_MEMORY]: 'memory ran out',
  [Problem.INVALID_DATA]: 'its bus driver gave invalid data',
  [Problem.FAILED_START]: 'cannot start',
  [Problem.NORMAL_CONFLICT]: 'no free resources are enough',
  [Problem.DISABLED]: 'disabled',
  [Problem.DEVICE_NOT_THERE]: 'not present or not working',
  [Problem.FAILED_INSTALL]: 'no driver is installed',
  [Problem.HARDWARE_DISABLED]: 'disabled by its hardware',
  [Problem.FAILED_ADD]: 'a driver would not take it',
  [Problem.DISABLED_SERVICE]: 'its service is disabled',
  [Problem.TRANSLATION_FAILED]: 'its resources cannot be translated',
  [Problem.FAILED_DRIVER_ENTRY]: 'a driver could not be initialised',
  [Problem.DRIVER_FAILED_PRIOR_UNLOAD]: 'a driver did not leave its stack',
  [Problem.DRIVER_SERVICE_KEY_INVALID]: 'its service is not in the registry',
  [Problem.DUPLICATE_DEVICE]: 'another device has the same identity',
  [Problem.FAILED_POST_START]: 'stopped because it reported problems',
  [Problem.HELD_FOR_EJECT]: 'ready to be taken out',
}

export function problemText(problem: Problem): string {
  return TEXTS[problem]
}
