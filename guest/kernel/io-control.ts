/** METHOD_*: how a device control's buffers reach the driver. */
export const Method = { BUFFERED: 0, IN_DIRECT: 1, OUT_DIRECT: 2, NEITHER: 3 } as const
export type Method = (typeof Method)[keyof typeof Method]

/** FILE_*_ACCESS of a control code. */
export const Access = { ANY: 0, READ: 1, WRITE: 2 } as const

/** CTL_CODE: device type, function, method and access. */
export function controlCode(deviceType: number, operation: number, method: Method, access: number): number {
  return deviceType * 0x1_0000 + access * 0x4000 + operation * 4 + method
}

export function methodOf(code: number): Method {
  return (code & 3) as Method
}

/** Access bits the handle must have. */
export function accessOf(code: number): number {
  return (code >>> 14) & 3
}
