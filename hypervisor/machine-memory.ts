import { type Gpa, GuestMemory, gpa, PAGE_BYTES } from '../protocol/memory.ts'
import type { Plain } from '../protocol/platform.ts'
import type { Window } from '../protocol/window.ts'
import { loadPages, pagesInvalid, savePages } from './page-image.ts'
import type { GuestRange } from './processor.ts'
import { EptTables, PagePool } from './vtx/ept.ts'
import { EptEntry } from './vtx/ept-walk.ts'
import { Physical } from './vtx/physical.ts'

/** Pages of the hypervisor's own memory, which lies at host-physical 0. */
export const OwnPage = {
  VMXON: 0x1000,
  VMCS: 0x2000,
  MSR_BITMAP: 0x3000,
  VIRTUAL_APIC: 0x4000,
  APIC_ACCESS: 0x5000,
  POSTED_INTERRUPTS: 0x6000,
  INTERRUPT_TABLE: 0x7000,
  STACK: 0x8000,
  POOL: 0x1_0000,
} as const

/** What firmware keeps of guest-physical memory: the interrupt table and the stack of interrupts. */
export const FIRMWARE_BASE = gpa(0xfedf_0000)
export const FIRMWARE_BYTES = 2 * PAGE_BYTES
/** The APICs and the firmware; RAM keeps out of it. */
const RESERVED_BASE = 0xfec0_0000
const RESERVED_END = 0x1_0000_0000

/** Guest RAM lies here in host-physical memory, so that an address of one kind taken for the other shows. */
const RAM_AT = 0x1_0000_0000
const SPARE_BYTES = 2 ** 20

const READ_WRITE_EXECUTE = EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE

/**
 * Host-physical memory and the EPT in front of it: the hypervisor's own pages, and the guest's RAM, whose bytes
 * devices share.
 */
export class MachineMemory {
  /** Guest RAM as devices reach it: guest-physical addresses, no EPT. */
  readonly ram: GuestMemory
  readonly physical: GuestMemory
  readonly ept: EptTables
  readonly #own: Uint8Array<ArrayBuffer>
  readonly #pool: PagePool
  /** Pages beyond RAM that were given to the guest, with where they lie. */
  readonly #spare: Map<number, number>

  /** @throws RangeError when RAM lies where a PC has its APICs. */
  constructor(ram: GuestMemory) {
    let ramBytes = 0
    for (const { base, bytes } of ram.regions) {
      if (base < RESERVED_END && base + bytes.length > RESERVED_BASE) {
        throw new RangeError('guest RAM lies over the interrupt controllers, from 0xfec00000 to 4 GiB')
      }
      ramBytes += bytes.length
    }
    this.ram = ram
    // Enough for tables of 4 KiB leaves over all of RAM.
    const tables = Math.ceil(ramBytes / 512 / PAGE_BYTES) * PAGE_BYTES
    this.#own = new Uint8Array(OwnPage.POOL + tables + SPARE_BYTES)
    const regions = ram.regions.map((region) => ({ ...region, base: gpa(RAM_AT + region.base) }))
    this.physical = new GuestMemory([{ base: gpa(0), bytes: this.#own }, ...regions])
    this.#pool = new PagePool(OwnPage.POOL, this.#own.length - OwnPage.POOL)
    this.ept = new EptTables(new Physical(this.physical), this.#pool, 2)
    this.#spare = new Map()
  }

  /** The guest's memory map. */
  get ranges(): readonly GuestRange[] {
    return this.ram.regions.map(({ base, bytes, shared = false }) => {
      return { base, lengthBytes: bytes.length, shared }
    })
  }

  /** One of the hypervisor's own pages. */
  own(page: number): Window {
    const window = this.physical.window(gpa(page), PAGE_BYTES, PAGE_BYTES)
    if (window === null) throw new RangeError(`the hypervisor has no page at ${page}`)
    return window
  }

  /** Maps all of RAM, the firmware's pages, and the APIC-access page at `apicBase`. */
  mapAll(apicBase: Gpa): void {
    for (const { base, lengthBytes } of this.ranges) this.mapRam(base, lengthBytes)
    this.#mapFirmware(FIRMWARE_BASE, FIRMWARE_BYTES)
    this.ept.map(apicBase, PAGE_BYTES, { to: OwnPage.APIC_ACCESS, permissions: READ_WRITE_EXECUTE })
  }

  /** Maps RAM (again). Whole pages. */
  mapRam(at: Gpa, lengthBytes: number): void {
    this.ept.map(at, lengthBytes, { to: RAM_AT + at, permissions: READ_WRITE_EXECUTE })
  }

  /** Whether an address is the guest's to use without a device: RAM, or the firmware's pages. */
  isBacked(at: Gpa): boolean {
    return this.ram.backed(at, 1) || isFirmware(at)
  }

  /** Maps the page of such an address (again). */
  mapBack(at: Gpa): void {
    const page = gpa(at - (at % PAGE_BYTES))
    if (isFirmware(at)) this.#mapFirmware(page, PAGE_BYTES)
    else this.mapRam(page, PAGE_BYTES)
  }

  /** Backs a page that is no RAM with memory of the hypervisor's, so that nothing there exits any more. */
  mapSpare(at: Gpa): void {
    const page = this.#spare.get(at) ?? this.#pool.take()
    this.#spare.set(at, page)
    this.own(page).fill(0, 0, PAGE_BYTES)
    this.ept.map(at, PAGE_BYTES, { to: page, permissions: READ_WRITE_EXECUTE })
  }

  /** Takes such a page away again. False when it is none. */
  unmapSpare(at: Gpa): boolean {
    const page = this.#spare.get(at)
    if (page === undefined) return false
    this.ept.unmap(at, PAGE_BYTES)
    this.#spare.delete(at)
    this.#pool.give(page)
    return true
  }

  #mapFirmware(at: Gpa, lengthBytes: number): void {
    const to = OwnPage.INTERRUPT_TABLE + (at - FIRMWARE_BASE)
    this.ept.map(at, lengthBytes, { to, permissions: READ_WRITE_EXECUTE })
  }

  save(): Plain {
    return {
      own: savePages(this.#own),
      ram: this.ram.regions.map(({ bytes }) => savePages(bytes)),
      pool: this.#pool.save(),
      spare: [...this.#spare].map(([at, page]) => [at, page]),
    }
  }

  /** Takes a saved state; returns what is wrong with it, and then nothing has changed. */
  load(saved: Plain): string | null {
    if (typeof saved !== 'object' || saved === null) return 'memory state is not an object'
    const { own, ram, pool, spare } = saved as Record<string, Plain | undefined>
    const { regions } = this.ram
    if (!Array.isArray(ram) || ram.length !== regions.length) return 'memory state has other regions'
    const wrong =
      pagesInvalid(this.#own, own) ??
      regions.reduce<string | null>((why, { bytes }, index) => why ?? pagesInvalid(bytes, ram[index]), null)
    if (wrong !== null) return wrong
    const isPair = (pair: Plain): boolean =>
      Array.isArray(pair) &&
      pair.length === 2 &&
      pair.every((page) => typeof page === 'number' && page >= 0 && page % PAGE_BYTES === 0)
    if (!Array.isArray(spare) || !spare.every(isPair))
      return 'memory state: spare pages are no pairs of addresses'
    const refused = this.#pool.load(pool ?? null)
    if (refused !== null) return refused
    loadPages(this.#own, own)
    for (const [index, { bytes }] of regions.entries()) loadPages(bytes, ram[index])
    this.#spare.clear()
    for (const [at, page] of spare as [number, number][]) this.#spare.set(at, page)
    return null
  }
}

function isFirmware(at: number): boolean {
  return at >= FIRMWARE_BASE && at < FIRMWARE_BASE + FIRMWARE_BYTES
}
