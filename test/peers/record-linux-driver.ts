/**
 * Boots a Linux kernel on QEMU's microvm and writes down what its virtio-mmio and virtio-blk drivers do, into
 * fixtures/linux-driver.json. Some five seconds. Needs qemu-system-x86, busybox-static, cpio and an unpacked
 * kernel package:
 *
 *     apt-get download linux-image-6.1.0-56-cloud-amd64    # what linux-image-cloud-amd64 depends on
 *     dpkg-deb -x linux-image-*.deb kernel
 *     npx tsx test/peers/record-linux-driver.ts kernel
 */
import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { TRANSCRIPT, transcriptText } from './linux-driver.ts'
import { LinuxRecorder } from './linux-recorder.ts'
import { qemuVersion } from './qtest.ts'

const DISK_BYTES = 8 * 2 ** 20
/** microvm's last of 24 slots, where the first device goes. */
const REGISTERS_AT = 0xfeb0_0000 + 23 * 512
const MODULES = ['virtio/virtio_ring', 'virtio/virtio', 'virtio/virtio_mmio', 'block/virtio_blk']
/** How long QEMU's disk takes for anything, so that a request can be read while it is out. */
const LATENCY_NS = 150_000_000

/** One request at a time: reads of one and of several pages, writes, a flush, and the driver unloaded and back. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_mmio virtio_blk; do insmod /mod/$m.ko; done
ready() { while [ ! -b /dev/vda ]; do sleep 0.1; done; }
ready
dd if=/dev/vda of=/dev/null bs=512 count=2 skip=16383 iflag=direct
dd if=/dev/vda of=/dev/null bs=16k count=1 skip=3 iflag=direct
yes paravane | dd of=/dev/vda bs=512 count=3 seek=100 oflag=direct
yes bench | dd of=/dev/vda bs=1k count=1 seek=200 conv=fsync
dd if=/dev/vda of=/dev/null bs=512 count=1 skip=100 iflag=direct
rmmod virtio_blk; sleep 0.2; insmod /mod/virtio_blk.ko
ready
dd if=/dev/vda of=/dev/null bs=512 count=1 skip=7 iflag=direct
echo RECORDED
poweroff -f
`

function initramfs(folder: string, kernel: string): string {
  const root = path.join(folder, 'root')
  for (const name of ['bin', 'mod', 'proc', 'sys', 'dev'])
    mkdirSync(path.join(root, name), { recursive: true })
  copyFileSync('/usr/bin/busybox', path.join(root, 'bin/busybox'))
  const [release = ''] = readdirSync(path.join(kernel, 'lib/modules'))
  for (const module of MODULES) {
    const from = path.join(kernel, 'lib/modules', release, 'kernel/drivers', `${module}.ko`)
    copyFileSync(from, path.join(root, 'mod', path.basename(from)))
  }
  writeFileSync(path.join(root, 'init'), INIT)
  chmodSync(path.join(root, 'init'), 0o755)
  const archive = path.join(folder, 'initramfs')
  execFileSync('sh', ['-c', 'find . | cpio --quiet -o -H newc > "$0"', archive], { cwd: root })
  return archive
}

async function record(kernel: string): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'paravane-record-'))
  const [image = ''] = readdirSync(path.join(kernel, 'boot')).filter((name) => name.startsWith('vmlinuz-'))
  const memory = path.join(folder, 'memory')
  const memoryBytes = 256 * 2 ** 20
  writeFileSync(memory, '')
  const recorder = new LinuxRecorder(memory, REGISTERS_AT)
  try {
    const child = spawn(
      'timeout',
      [
        ...['60', 'qemu-system-x86_64', '-M', 'microvm,acpi=on,memory-backend=ram', '-accel', 'tcg'],
        ...['-cpu', 'max', '-m', `${memoryBytes / 2 ** 20}`, '-nodefaults', '-no-user-config'],
        '-object',
        `memory-backend-file,id=ram,size=${memoryBytes},mem-path=${memory},share=on`,
        ...['-display', 'none', '-no-reboot', '-serial', 'stdio'],
        ...['-kernel', path.join(kernel, 'boot', image), '-initrd', initramfs(folder, kernel)],
        // The emulated timer cannot be calibrated against anything on this machine: its rate is told.
        ...['-append', 'console=ttyS0 quiet panic=-1 tsc_early_khz=2000000 lpj=4000000 no_timer_check'],
        ...['-global', 'virtio-mmio.force-legacy=false'],
        ...['-blockdev', `null-co,node-name=d0,size=${DISK_BYTES},read-zeroes=on,latency-ns=${LATENCY_NS}`],
        ...['-device', 'virtio-blk-device,drive=d0'],
        ...['-trace', 'memory_region_ops_*', '-trace', 'virtio_blk_req_complete'],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    let console = ''
    child.stdout.on('data', (text: Buffer) => {
      console += text.toString()
    })
    for await (const line of createInterface({ input: child.stderr })) recorder.line(line)
    if (!console.includes('RECORDED')) throw new Error(`the guest did not get to its end:\n${console}`)
    const transcript = {
      kernel: image.replace('vmlinuz-', 'Linux '),
      qemu: qemuVersion().replace(/ \(.*/, ''),
      diskBytes: DISK_BYTES,
      events: recorder.events,
    }
    writeFileSync(TRANSCRIPT, transcriptText(transcript))
  } finally {
    recorder.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

const [kernel] = process.argv.slice(2)
if (kernel === undefined) throw new Error('give the folder of an unpacked kernel package')
await record(kernel)
