import { Window } from '../../../protocol/window.ts'
import { sendControl } from '../../kernel/control-request.ts'
import type { DeviceObject } from '../../kernel/device-object.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { EVENT_NOTIFICATION, STORAGE_EVENT_NOTIFICATION, StorageEvent } from '../storage-property.ts'

const VERSION = 1

/**
 * Tells the top of a unit's stack that the medium is another one than before (IOCTL_STORAGE_EVENT_NOTIFICATION).
 * A port before Windows 8 has no such news: there an idle disk learns of its new size with its next command.
 * Ours tells on every version, so that nobody has to rescan by hand; who does not know the request passes it on.
 */
export function* notifyUnit(kernel: Kernel, pdo: DeviceObject): Waiting<void> {
  const bytes = new Uint8Array(STORAGE_EVENT_NOTIFICATION.$size)
  const event = new Window(bytes)
  event.putLe32(STORAGE_EVENT_NOTIFICATION.version, VERSION)
  event.putLe32(STORAGE_EVENT_NOTIFICATION.size, bytes.length)
  event.putLe64(STORAGE_EVENT_NOTIFICATION.events, StorageEvent.MEDIA_STATUS)
  yield* sendControl(kernel, kernel.ioGetAttachedDevice(pdo), EVENT_NOTIFICATION, bytes, 0)
}
