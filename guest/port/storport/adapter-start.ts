import type { Interrupt } from '../../kernel/interrupt.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import type { MakeMiniport, Miniport, PortConfiguration, PortResource } from '../miniport.ts'
import type { Adapter } from './adapter.ts'
import { StorPortServices } from './services.ts'

/** An adapter that was started: its miniport, what that asked for, and its interrupt. */
export interface StartedAdapter {
  readonly miniport: Miniport
  readonly services: StorPortServices
  readonly configuration: PortConfiguration
  readonly interrupt: Interrupt
}

/**
 * What START does to an adapter, in Storport's order: FindAdapter at PASSIVE level, the interrupt connected,
 * HwInitialize at its level. Answers why not, with nothing left behind.
 */
export function* startAdapter(
  adapter: Adapter,
  make: MakeMiniport,
  resources: readonly PortResource[],
): Waiting<StartedAdapter | NtStatus> {
  const { kernel } = adapter
  const line = resources.find((one) => one.kind === 'interrupt')
  if (line === undefined) return NtStatus.DEVICE_CONFIGURATION_ERROR
  const services = StorPortServices.create(adapter, resources)
  if (services === null) return NtStatus.INSUFFICIENT_RESOURCES
  const miniport = make(services)
  const configuration = freshConfiguration(resources)
  services.finding = true
  const found = miniport.findAdapter(configuration)
  services.finding = false
  if (found !== 'found') {
    services.release(false)
    if (services.memoryShort) return NtStatus.INSUFFICIENT_RESOURCES
    return found === 'not-found' ? NtStatus.NO_SUCH_DEVICE : NtStatus.DEVICE_CONFIGURATION_ERROR
  }
  adapter.miniport = miniport
  adapter.requests.extensionBytes = configuration.srbExtensionBytes
  const interrupt = kernel.ioConnectInterrupt(
    () => {
      adapter.counts.interrupts++
      return miniport.interrupt()
    },
    { line: line.line, trigger: 'level' },
  )
  if (typeof interrupt === 'number') {
    adapter.miniport = null
    services.release(false)
    return interrupt
  }
  if (!kernel.keSynchronizeExecution(interrupt, () => miniport.initialize())) {
    kernel.ioDisconnectInterrupt(interrupt)
    adapter.miniport = null
    services.release(false)
    return NtStatus.ADAPTER_HARDWARE_ERROR
  }
  return { miniport, services, configuration, interrupt }
}

function freshConfiguration(resources: readonly PortResource[]): PortConfiguration {
  return {
    resources,
    maximumTransferLength: 0xffff_ffff,
    numberOfPhysicalBreaks: 17,
    numberOfBuses: 1,
    maximumNumberOfTargets: 1,
    maximumNumberOfLogicalUnits: 1,
    alignmentMask: 0,
    cachesData: false,
    srbExtensionBytes: 0,
  }
}
