import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { type BenchDescription, PROFILE_NAMES, WINDOWS_NAMES } from '../../bench/description.ts'
import { deviceTree } from '../../bench/device-tree.ts'
import type { DeviceView } from '../../guest/kernel/pnp/device-view.ts'
import { escapePath } from '../host/disk-subjects.ts'

const PLAIN = { seed: 1, disks: ['memory:size=1M'] }

function names(devices: readonly DeviceView[], depth = 0): string[] {
  return devices.flatMap((one) => [`${'  '.repeat(depth)}${one.name}`, ...names(one.children, depth + 1)])
}

describe('the device tree of a bench', () => {
  it.each(WINDOWS_NAMES.flatMap((windows) => PROFILE_NAMES.map((profile) => ({ windows, profile }))))(
    'is found and works on Windows $windows, profile $profile',
    async (change) => {
      const report = await deviceTree({ ...PLAIN, ...change })
      expect(report.working).toBe(true)
      expect(report.guest).toEqual(change)
      expect(names(report.devices)).toEqual([
        'Microsoft ACPI-Compliant System',
        // XP has no Storport in its box: the tree says whose it is.
        `  Paravane VirtIO block adapter${change.windows === 'xp' ? ' (Storport of Server 2003)' : ''}`,
        '    Paravane VirtIO Disk SCSI Disk Device',
      ])
    },
  )

  it('has a branch for each disk, whatever stands behind it, and leaves an image as it was', async () => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-tree-'))
    try {
      const image = path.join(directory, 'disk.img')
      fs.writeFileSync(image, new Uint8Array(2 ** 20).fill(3))
      const before = fs.statSync(image).mtimeMs
      const spec = escapePath(image)
      const disks = ['memory', `file:${spec}`, `file-async:${spec}`, 'memory | delay:ms=3 | overlay']
      const report = await deviceTree({ ...PLAIN, disks })
      expect(report.working).toBe(true)
      expect(report.devices[0]?.children.map((adapter) => adapter.children[0]?.driver)).toEqual(
        disks.map(() => 'disk'),
      )
      expect(fs.statSync(image).mtimeMs).toBe(before)
      expect(fs.readFileSync(image).every((byte) => byte === 3)).toBe(true)
    } finally {
      fs.rmSync(directory, { recursive: true, force: true })
    }
  })

  it.each([
    [{ windows: '95' }, 'windows is "95"; it takes one of xp, vista, 7'],
    [{ profile: 'z80' }, 'profile is "z80"; it takes one of 2006, 2010, apicv'],
    [{ disks: ['memory', 'nothing'] }, 'disk1: '],
    [{ disks: Array<string>(17).fill('memory:size=1M') }, '17 disks; a bench has at most 16'],
  ])('is refused in one line: %o', async (change, line) => {
    await expect(deviceTree({ ...PLAIN, ...change } as BenchDescription)).rejects.toThrow(line)
  })
})
