import type { AnyLayout } from '../../protocol/layout.ts'
import {
  CachingPage,
  ExceptionsPage,
  InquiryData,
  ModeFlag,
  ModeHeader6,
  ModeHeader10,
  ModePage,
  ReadCapacity10,
  ReadCapacity16,
  ReportLunsData,
  Vpd,
  VpdBlockLimits,
  VpdCharacteristics,
  VpdHeader,
  VpdProvisioning,
} from '../../protocol/scsi.ts'
import { Window } from '../../protocol/window.ts'
import type { TargetFacts } from './scsi-target.ts'

const VENDOR = 'Paravane'
const PRODUCT = 'VirtIO Disk'
const REVISION = '1'
const SPC_4 = 6
const COMMAND_QUEUING = 2
const CAPACITY_10_MAX = 0xffff_ffff
const NOT_ROTATING = 1
const THIN = 2
const WRITE_CACHE = 4

function make(layout: AnyLayout, tailBytes = 0): { bytes: Uint8Array<ArrayBuffer>; window: Window } {
  const bytes = new Uint8Array(layout.$size + tailBytes)
  return { bytes, window: new Window(bytes) }
}

function ascii(text: string, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at < text.length ? text.charCodeAt(at) & 0x7f : 0x20))
}

/** Standard INQUIRY data of a disk that does not rotate and is not removable. */
export function inquiryData(): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(InquiryData)
  window.putU8(InquiryData.version, SPC_4)
  window.putU8(InquiryData.format, 2)
  window.putU8(InquiryData.additionalLength, InquiryData.$size - 5)
  window.putU8(InquiryData.flags2, COMMAND_QUEUING)
  window.copyIn(InquiryData.vendor, ascii(VENDOR, 8))
  window.copyIn(InquiryData.product, ascii(PRODUCT, 16))
  window.copyIn(InquiryData.revision, ascii(REVISION, 4))
  return bytes
}

/** A vital product data page, or null for one the disk has not. */
export function vitalProductData(page: number, facts: TargetFacts): Uint8Array<ArrayBuffer> | null {
  switch (page) {
    case Vpd.SUPPORTED:
      return listPage(page, Uint8Array.from(supportedPages(facts)))
    case Vpd.SERIAL:
      return listPage(page, ascii(facts.serial, facts.serial.length))
    case Vpd.IDENTIFICATION:
      return listPage(page, designator(facts))
    case Vpd.BLOCK_LIMITS:
      return blockLimits(facts)
    case Vpd.CHARACTERISTICS: {
      const { bytes, window } = make(VpdCharacteristics)
      window.putU8(VpdCharacteristics.page, page)
      window.putBe16(VpdCharacteristics.lengthBytes, VpdCharacteristics.$size - 4)
      window.putBe16(VpdCharacteristics.rotationRate, NOT_ROTATING)
      return bytes
    }
    case Vpd.PROVISIONING:
      return facts.unmapRangesMax === 0 ? null : provisioning()
    default:
      return null
  }
}

function supportedPages(facts: TargetFacts): number[] {
  const pages: number[] = [
    Vpd.SUPPORTED,
    Vpd.SERIAL,
    Vpd.IDENTIFICATION,
    Vpd.BLOCK_LIMITS,
    Vpd.CHARACTERISTICS,
  ]
  return facts.unmapRangesMax === 0 ? pages : [...pages, Vpd.PROVISIONING]
}

function listPage(page: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(VpdHeader, content.length)
  window.putU8(VpdHeader.page, page)
  window.putBe16(VpdHeader.lengthBytes, content.length)
  bytes.set(content, VpdHeader.content)
  return bytes
}

/** One T10 vendor designator: code set ASCII, type 1, vendor and serial. */
function designator(facts: TargetFacts): Uint8Array {
  const name = `${VENDOR}${facts.serial}`
  return Uint8Array.from([0x02, 0x01, 0x00, name.length, ...ascii(name, name.length)])
}

function blockLimits(facts: TargetFacts): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(VpdBlockLimits)
  window.putU8(VpdBlockLimits.page, Vpd.BLOCK_LIMITS)
  window.putBe16(VpdBlockLimits.lengthBytes, VpdBlockLimits.$size - 4)
  window.putBe16(VpdBlockLimits.optimalGranularity, 2 ** facts.physicalExponent)
  window.putBe32(VpdBlockLimits.unmapBlocksMax, facts.unmapBlocksMax)
  window.putBe32(VpdBlockLimits.unmapDescriptorsMax, facts.unmapRangesMax)
  window.putBe32(VpdBlockLimits.unmapGranularity, facts.unmapRangesMax === 0 ? 0 : 1)
  return bytes
}

function provisioning(): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(VpdProvisioning)
  window.putU8(VpdProvisioning.page, Vpd.PROVISIONING)
  window.putBe16(VpdProvisioning.lengthBytes, VpdProvisioning.$size - 4)
  window.putU8(VpdProvisioning.flags, 0x80)
  window.putU8(VpdProvisioning.type, THIN)
  return bytes
}

export function readCapacity10(facts: TargetFacts): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(ReadCapacity10)
  window.putBe32(ReadCapacity10.lastLba, Math.min(lastLba(facts), CAPACITY_10_MAX))
  window.putBe32(ReadCapacity10.blockBytes, facts.blockBytes)
  return bytes
}

export function readCapacity16(facts: TargetFacts): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(ReadCapacity16)
  window.putBe64(ReadCapacity16.lastLba, lastLba(facts))
  window.putBe32(ReadCapacity16.blockBytes, facts.blockBytes)
  window.putU8(ReadCapacity16.exponents, facts.physicalExponent)
  window.putBe16(ReadCapacity16.alignment, facts.unmapRangesMax === 0 ? 0 : 0x8000)
  return bytes
}

/** The last block; an empty disk has none, and says 0 as an empty range cannot be told. */
function lastLba(facts: TargetFacts): number {
  return Math.max(0, facts.blocks - 1)
}

/** One logical unit, number 0. */
export function reportLuns(): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(ReportLunsData, 8)
  window.putBe32(ReportLunsData.lengthBytes, 8)
  return bytes
}

/** Mode parameters: a header of either form, and the page or pages asked for. */
export function modeData(page: number, facts: TargetFacts, six: boolean): Uint8Array<ArrayBuffer> {
  const pages: Uint8Array[] = []
  if (page === ModePage.CACHING || page === ModePage.ALL) pages.push(cachingPage(facts))
  if (page === ModePage.EXCEPTIONS || page === ModePage.ALL) pages.push(exceptionsPage())
  const content = pages.reduce((total, one) => total + one.length, 0)
  const layout = six ? ModeHeader6 : ModeHeader10
  const { bytes, window } = make(layout, content)
  const deviceSpecific = (facts.readOnly ? ModeFlag.WRITE_PROTECT : 0) | ModeFlag.DPOFUA
  if (six) {
    window.putU8(ModeHeader6.lengthBytes, bytes.length - 1)
    window.putU8(ModeHeader6.deviceSpecific, deviceSpecific)
  } else {
    window.putBe16(ModeHeader10.lengthBytes, bytes.length - 2)
    window.putU8(ModeHeader10.deviceSpecific, deviceSpecific)
  }
  let at = layout.$size
  for (const one of pages) {
    bytes.set(one, at)
    at += one.length
  }
  return bytes
}

function cachingPage(facts: TargetFacts): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(CachingPage)
  window.putU8(CachingPage.page, ModePage.CACHING)
  window.putU8(CachingPage.lengthBytes, CachingPage.$size - 2)
  window.putU8(CachingPage.flags, facts.writeCache ? WRITE_CACHE : 0)
  return bytes
}

function exceptionsPage(): Uint8Array<ArrayBuffer> {
  const { bytes, window } = make(ExceptionsPage)
  window.putU8(ExceptionsPage.page, ModePage.EXCEPTIONS)
  window.putU8(ExceptionsPage.lengthBytes, ExceptionsPage.$size - 2)
  return bytes
}
