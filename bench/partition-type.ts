/** Types of MBR partitions that one meets. */
const MBR: { readonly [type: string]: string } = {
  '01': 'FAT12',
  '04': 'FAT16',
  '05': 'extended',
  '06': 'FAT16',
  '07': 'NTFS or exFAT',
  '0b': 'FAT32',
  '0c': 'FAT32',
  '0e': 'FAT16',
  '0f': 'extended',
  '27': 'Windows recovery',
  '82': 'Linux swap',
  '83': 'Linux',
  '85': 'Linux extended',
  '8e': 'Linux LVM',
  a5: 'FreeBSD',
  a6: 'OpenBSD',
  a9: 'NetBSD',
  ee: 'GPT protective',
  ef: 'EFI system',
  fd: 'Linux RAID',
}

/** The same of GPT partitions. */
const GPT: { readonly [type: string]: string } = {
  'c12a7328-f81f-11d2-ba4b-00a0c93ec93b': 'EFI system',
  '21686148-6449-6e6f-744e-656564454649': 'BIOS boot',
  'e3c9e316-0b5c-4db8-817d-f92df00215ae': 'Microsoft reserved',
  'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7': 'Microsoft basic data',
  'de94bba4-06d1-4d40-a16a-bfd50179d6ac': 'Windows recovery',
  '0fc63daf-8483-4772-8e79-3d69d8477de4': 'Linux filesystem',
  '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f': 'Linux swap',
  'e6d6d379-f507-44c2-a23c-238f2a3df928': 'Linux LVM',
  'a19d880f-05fc-4d3b-a006-743f0f84911e': 'Linux RAID',
  '4f68bce3-e8cd-4db1-96e7-fbcaf984b709': 'Linux root (x86-64)',
  'b921b045-1df0-41c3-af44-4c6f280d3fae': 'Linux root (arm64)',
  '933ac7e1-2eb4-4f13-b844-0e14e2aef915': 'Linux home',
  'bc13c2ff-59e6-4262-a352-b275fd6f7172': 'Linux extended boot',
  '516e7cb6-6ecf-11d6-8ff8-00022d09712b': 'FreeBSD UFS',
}

/** What usually lies on a partition of a type: two hexadecimal digits, or a GUID. Null: not known here. */
export function partitionTypeName(type: string): string | null {
  return MBR[type] ?? GPT[type] ?? null
}
