; The boot sector of the witness: loads the harness, enters long mode, jumps to it.
; layout.inc is written by assemble.ts from layout.ts.

%include "layout.inc"

org 0x7c00
bits 16

boot:
  jmp 0:.here
.here:
  cli
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x7c00
  mov [boot_drive], dl
  mov cx, (IMAGE_SECTORS + 63) / 64
.load:
  push cx
  mov ah, 0x42
  mov dl, [boot_drive]
  mov si, packet
  int 0x13
  jc .stuck
  add word [packet.segment], 64 * 32
  add dword [packet.sector], 64
  pop cx
  loop .load
  in al, 0x92
  or al, 2
  and al, 0xfe
  out 0x92, al
  mov al, 0xff
  out 0x21, al
  out 0xa1, al
  mov di, HOST_PML4
  mov cx, 0x1000
  xor ax, ax
  rep stosw
  mov dword [HOST_PML4], HOST_PDPT + 3
; linear 1 GiB maps physical 3 GiB, so that a 32-bit displacement reaches the local APIC
  mov dword [HOST_PDPT + 0], 0x00000083
  mov dword [HOST_PDPT + 8], 0xc0000083
  mov si, boot_gdt
  mov di, HOST_GDT
  mov cx, 20
  rep movsw
  lgdt [boot_gdtr]
  mov eax, HOST_CR4
  mov cr4, eax
  mov eax, HOST_PML4
  mov cr3, eax
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x100
  wrmsr
  mov eax, HOST_CR0
  mov cr0, eax
  jmp dword 0x08:IMAGE_START
.stuck:
  hlt
  jmp .stuck

boot_drive: db 0
align 4
packet:
  db 16, 0
  dw 64
  dw 0
.segment: dw IMAGE >> 4
.sector: dd 1, 0
boot_gdtr:
  dw 39
  dd HOST_GDT
boot_gdt:
  dq 0, 0x00209b0000000000, 0x00c0930000000000 | 0xffff
  dq 0x0000890000000067 | (HOST_TSS << 16), 0

times 510 - ($ - $$) db 0
dw 0xaa55
