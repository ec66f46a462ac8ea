import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** What is no TypeScript lies with the sources only, also for a program that runs from dist/. */
const SOURCES = fileURLToPath(new URL('.', import.meta.url)).replace(
  /([/\\])dist[/\\](?=test[/\\]peers[/\\])/,
  '$1',
)
const PROGRAMS = ['block-storm', 'disk-speed']
const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox']
const MODULES = [
  'drivers/virtio/virtio_ring.ko',
  'drivers/virtio/virtio.ko',
  'drivers/virtio/virtio_pci_modern_dev.ko',
  'drivers/virtio/virtio_pci_legacy_dev.ko',
  'drivers/virtio/virtio_pci.ko',
  'drivers/block/virtio_blk.ko',
]
const EXECUTABLE = 0o100755
const FOLDER = 0o040755

export interface LinuxKernel {
  readonly image: string
  /** The folder that its modules lie in. */
  readonly modules: string
}

/**
 * A kernel with its drivers as modules, as distributions ship it: below the folder that PARAVANE_LINUX names (an
 * unpacked package), or installed here. Null when there is none.
 */
export function linuxKernel(): LinuxKernel | null {
  for (const root of [process.env['PARAVANE_LINUX'], '/']) {
    if (root === undefined || !existsSync(path.join(root, 'boot'))) continue
    for (const name of readdirSync(path.join(root, 'boot'))) {
      if (!name.startsWith('vmlinuz-')) continue
      const modules = path.join(root, 'lib/modules', name.slice('vmlinuz-'.length), 'kernel')
      if (!MODULES.every((module) => existsSync(path.join(modules, module)))) continue
      return { image: path.join(root, 'boot', name), modules }
    }
  }
  return null
}

/** What is missing to build a guest here, or null. */
export function linuxGuestMissing(): string | null {
  if (linuxKernel() === null) return 'a Linux kernel with virtio modules (PARAVANE_LINUX)'
  if (busybox() === null) return 'busybox'
  if (!existsSync(path.join(SOURCES, 'init'))) return "the guest's sources, which are in the repository only"
  return spawnSync('gcc', ['--version']).error === undefined ? null : 'gcc'
}

function busybox(): string | null {
  return BUSYBOX.find((file) => existsSync(file)) ?? null
}

/** Writes `initramfs` and returns its path: busybox, the modules, our init and the programs that it starts. */
export function makeInitramfs(kernel: LinuxKernel, folder: string): string {
  const archive = new Archive()
  for (const name of ['bin', 'dev', 'proc', 'sys', 'modules', 'tmp']) archive.folder(name)
  archive.file('init', readFileSync(path.join(SOURCES, 'init')))
  archive.file('bin/busybox', readFileSync(busybox() ?? ''))
  archive.file('bin/speed', readFileSync(path.join(SOURCES, 'speed')))
  for (const program of PROGRAMS) {
    const made = path.join(folder, program)
    const source = path.join(SOURCES, `${program}.c`)
    execFileSync('gcc', ['-static', '-O2', '-Wall', '-Werror', '-o', made, source])
    archive.file(`bin/${program}`, readFileSync(made))
  }
  for (const module of MODULES) {
    archive.file(`modules/${path.basename(module)}`, readFileSync(path.join(kernel.modules, module)))
  }
  const file = path.join(folder, 'initramfs')
  writeFileSync(file, archive.bytes())
  return file
}

/** A "newc" cpio archive, the form the kernel unpacks: cpio(5). */
class Archive {
  readonly #parts: Buffer[]
  #inode: number

  constructor() {
    this.#parts = []
    this.#inode = 1
  }

  folder(name: string): void {
    this.#entry(name, FOLDER, Buffer.alloc(0))
  }

  file(name: string, contents: Buffer): void {
    this.#entry(name, EXECUTABLE, contents)
  }

  bytes(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0))
    return Buffer.concat(this.#parts)
  }

  #entry(name: string, mode: number, contents: Buffer): void {
    const fields = [this.#inode++, mode, 0, 0, 1, 0, contents.length, 0, 0, 0, 0, name.length + 1, 0]
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`
    this.#parts.push(padded(Buffer.from(header, 'latin1')), padded(contents))
  }
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}
