/** What differs between the Windows versions served; a field that nothing reads does not belong here. */
export interface WindowsVersion {
  readonly name: string
  readonly major: number
  readonly minor: number
  /** CancelIoEx and CancelSynchronousIo: a request of another thread can be cancelled by its IOSB. */
  readonly cancelsByIosb: boolean
  /** FILE_SKIP_COMPLETION_PORT_ON_SUCCESS and FILE_SKIP_SET_EVENT_ON_HANDLE are accepted. */
  readonly skipsOnSuccess: boolean
  /** Drivers serialise power IRPs themselves with PoStartNextPowerIrp. */
  readonly powerIrpsByDriver: boolean
  /** START may be answered later; otherwise the PnP manager starts devices one after the other. */
  readonly asynchronousStart: boolean
  /** QUERY_ID asks for ContainerID, DEVICE_ENUMERATED is sent. */
  readonly containerId: boolean
  /** Message-signalled interrupts may be connected. */
  readonly messageInterrupts: boolean
  /**
   * Where Storport comes from, under which the bench puts its miniport on every version. Windows XP has ScsiPort
   * alone: there it is the one of Server 2003, which XP x64 has too. A ScsiPort of our own is later work.
   */
  readonly storport: 'in-box' | 'of-2003'
  /** The class driver sends TRIM as a DSM IOCTL. */
  readonly trimIoctl: boolean
}

/** By name. */
export const WINDOWS_VERSIONS = {
  xp: {
    name: 'xp',
    major: 5,
    minor: 1,
    cancelsByIosb: false,
    skipsOnSuccess: false,
    powerIrpsByDriver: true,
    asynchronousStart: false,
    containerId: false,
    messageInterrupts: false,
    storport: 'of-2003',
    trimIoctl: false,
  },
  vista: {
    name: 'vista',
    major: 6,
    minor: 0,
    cancelsByIosb: true,
    skipsOnSuccess: true,
    powerIrpsByDriver: false,
    asynchronousStart: true,
    containerId: false,
    messageInterrupts: true,
    storport: 'in-box',
    trimIoctl: false,
  },
  7: {
    name: '7',
    major: 6,
    minor: 1,
    cancelsByIosb: true,
    skipsOnSuccess: true,
    powerIrpsByDriver: false,
    asynchronousStart: true,
    containerId: true,
    messageInterrupts: true,
    storport: 'in-box',
    trimIoctl: true,
  },
} as const satisfies { readonly [name: string]: WindowsVersion }

export type WindowsVersionName = keyof typeof WINDOWS_VERSIONS

/** The version called `name`, or one line that says why there is none. */
export function windowsVersion(name: string): WindowsVersion | string {
  const found = Object.hasOwn(WINDOWS_VERSIONS, name)
    ? WINDOWS_VERSIONS[name as unknown as WindowsVersionName]
    : undefined
  if (found !== undefined) return found
  const served = Object.values(WINDOWS_VERSIONS).sort((a, b) => a.major - b.major || a.minor - b.minor)
  return `Windows "${name}" is not served: ${served.map((one) => one.name).join(', ')} are`
}
