; The witness harness: runs in long mode on a bare PC, turns VMX on, and obeys a list of 32-byte orders.
; layout.inc, reported.inc, programs.inc and orders.inc are written by assemble.ts from the same tables
; that the model is compared with, so no constant below is stated twice.

%include "layout.inc"

org IMAGE
bits 64
default abs

exit_jump:
  jmp exited
  times IMAGE_START - IMAGE - ($ - $$) db 0x90
long_start:
  mov ax, 0x10
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov fs, ax
  mov gs, ax
  mov rsp, HOST_RSP
  mov ax, 0x18
  ltr ax
  mov edi, HOST_IDT
  mov ebx, stubs
  mov ecx, 256
.gate:
  mov eax, ebx
  and eax, 0xffff
  or eax, 0x00080000
  mov [rdi], eax
  mov eax, ebx
  and eax, 0xffff0000
  or eax, 0x8e00
  mov [rdi + 4], eax
  mov qword [rdi + 8], 0
  add edi, 16
  add ebx, 16
  loop .gate
  lidt [host_idtr]
  mov ecx, 0x1b
  rdmsr
  or eax, 0x800
  wrmsr
  mov dword [APIC + 0xf0], 0x1ff
  mov dword [APIC + 0x80], 0
  mov dword [APIC + 0x350], 0x10000
  mov dword [APIC + 0x360], 0x10000
  mov ecx, 0x3a
  rdmsr
  test eax, 1
  jnz .locked
  or eax, 5
  wrmsr
.locked:
  call print_capabilities
  mov ecx, 0x480
  rdmsr
  and eax, 0x7fffffff
  mov [revision], eax
  mov [VMXON_REGION], eax
  vmxon [vmxon_pointer]
  jbe dead
  mov qword [ip], orders

next:
  mov rsp, HOST_RSP
  mov rsi, [ip]
  add qword [ip], 32
  mov rax, [rsi]
  mov rbx, [rsi + 8]
  mov rcx, [rsi + 16]
  mov rdx, [rsi + 24]
  jmp [order_table + rax * 8]

align 8
order_table:
  dq order_end, order_reset, order_return, order_field, order_memory, order_fill, order_copy
  dq order_register, order_advance, order_external, order_enter, order_execute

order_end:
  mov al, '.'
  call put
  call newline
dead:
  mov edx, 0x8900
  mov esi, shutdown
  mov ecx, 8
  rep outsb
.halt:
  hlt
  jmp .halt

; rbx: orders that lay out the default state
order_reset:
  mov r12, rbx
  call drain
  vmclear [vmcs_pointer]
  mov edi, HYPERVISOR_RAM
  mov ecx, HYPERVISOR_RAM_BYTES / 8
  xor eax, eax
  rep stosq
  mov edi, GUEST_RAM
  mov ecx, GUEST_RAM_BYTES / 8
  rep stosq
  mov edi, registers
  mov ecx, 16
  rep stosq
  mov eax, [revision]
  mov [VMCS_REGION], eax
  mov [LINK_VMCS], eax
  vmclear [vmcs_pointer]
  vmptrld [vmcs_pointer]
  mov rax, [ip]
  mov [return_ip], rax
  mov [ip], r12
  jmp next

order_return:
  mov rax, [return_ip]
  mov [ip], rax
  jmp next

; rbx: encoding, rcx: bits kept, rdx: bits set
order_field:
  xor eax, eax
  test rcx, rcx
  jz .write
  vmread rax, rbx
  and rax, rcx
.write:
  or rax, rdx
  vmwrite rbx, rax
  jbe .refused
  jmp next
.refused:
  mov al, '!'
  call put
  mov rax, rbx
  call hex
  call newline
  jmp next

; rbx: address, rcx: bits kept, rdx: bits set
order_memory:
  mov rax, [rbx]
  and rax, rcx
  or rax, rdx
  mov [rbx], rax
  jmp next

; rbx: address, rcx: first value, rdx: count; each value is 4096 above the one before
order_fill:
  mov [rbx], rcx
  add rbx, 8
  add rcx, 0x1000
  dec rdx
  jnz order_fill
  jmp next

; rbx: from, rcx: to, rdx: bytes
order_copy:
  mov rsi, rbx
  mov rdi, rcx
  mov rcx, rdx
  rep movsb
  jmp next

; rbx: number, rcx: value
order_register:
  mov [registers + rbx * 8], rcx
  jmp next

order_advance:
  mov ebx, FIELD_INSTRUCTION_LENGTH
  vmread rcx, rbx
  mov ebx, FIELD_GUEST_RIP
  vmread rax, rbx
  add rax, rcx
  vmwrite rbx, rax
  jmp next

; rbx: vector, left pending in the local APIC because the host runs with IF clear
order_external:
  mov dword [APIC + 0x310], 0
  or ebx, 0x44000
  mov [APIC + 0x300], ebx
  jmp next

; rbx: 0 VMLAUNCH, 1 VMRESUME, 2 VMLAUNCH in the shadow of MOV SS
order_enter:
  mov eax, 2
  invept rax, [all_contexts]
  invvpid rax, [all_contexts]
  mov [enter_kind], rbx
  mov rax, rbx
  cmp eax, 1
  mov rcx, [registers + 8]
  mov rdx, [registers + 16]
  mov rbx, [registers + 24]
  mov rbp, [registers + 40]
  mov rsi, [registers + 48]
  mov rdi, [registers + 56]
  mov r8, [registers + 64]
  mov r9, [registers + 72]
  mov r10, [registers + 80]
  mov r11, [registers + 88]
  mov r12, [registers + 96]
  mov r13, [registers + 104]
  mov r14, [registers + 112]
  mov r15, [registers + 120]
  mov rax, [registers]
  je .resume
  ja .shadow
  vmlaunch
  jmp .failed
.resume:
  vmresume
  jmp .failed
.shadow:
  mov ss, [data_selector]
  vmlaunch
.failed:
  mov rsp, HOST_RSP
  call report_failure
  jmp next

; rbx: which, rcx and rdx: operands
order_execute:
  mov [operand], rcx
  jmp [execute_table + rbx * 8]
execute_table:
  dq .vmptrld, .vmclear, .vmxon, .vmread, .vmwrite, .invept, .invvpid
.vmptrld:
  vmptrld [operand]
  jmp .done
.vmclear:
  vmclear [operand]
  jmp .done
.vmxon:
  vmxon [operand]
  jmp .done
.vmread:
  vmread rax, rcx
  jmp .done
.vmwrite:
  vmwrite rcx, rdx
  jmp .done
.invept:
  mov [operand], rdx
  invept rcx, [operand]
  jmp .done
.invvpid:
  mov [operand], rdx
  invvpid rcx, [operand]
  jmp .done
.done:
  call report_failure
  jmp next

; A line: 'F' and the VM-instruction error, -1 for VMfailInvalid, 0 for VMsucceed.
report_failure:
  jc .invalid
  jz .valid
  xor eax, eax
  jmp .print
.invalid:
  mov rax, -1
  jmp .print
.valid:
  mov ebx, FIELD_INSTRUCTION_ERROR
  vmread rax, rbx
.print:
  push rax
  mov al, 'F'
  call put
  pop rax
  call hex
  jmp newline

; A line: 'E', the reported fields in order, then the sixteen guest registers (rsp as the host left it).
exited:
  mov [registers], rax
  mov [registers + 8], rcx
  mov [registers + 16], rdx
  mov [registers + 24], rbx
  mov [registers + 40], rbp
  mov [registers + 48], rsi
  mov [registers + 56], rdi
  mov [registers + 64], r8
  mov [registers + 72], r9
  mov [registers + 80], r10
  mov [registers + 88], r11
  mov [registers + 96], r12
  mov [registers + 104], r13
  mov [registers + 112], r14
  mov [registers + 120], r15
  mov al, 'E'
  call put
  mov ebp, reported
.field:
  mov ebx, [rbp]
  cmp ebx, -1
  je .registers
  add ebp, 4
  vmread rax, rbx
  call hex
  jmp .field
.registers:
  xor ebp, ebp
.register:
  mov rax, [registers + rbp * 8]
  call hex
  inc ebp
  cmp ebp, 16
  jne .register
  call newline
  jmp next

; Takes whatever interrupts a case left behind, so that cases do not meet.
drain:
  pop rbx
  mov rax, rsp
  push qword 0x10
  push rax
  push qword 0x202
  push qword 0x08
  push qword .open
  iretq
.open:
  nop
  nop
  nop
  cli
  mov ecx, 16
.eoi:
  mov dword [APIC + 0xb0], 0
  loop .eoi
  jmp rbx

align 16
stubs:
%assign vector 0
%rep 256
  align 16, db 0x90
  push qword vector
%if vector == 2
  jmp took_nmi
%elif vector < 32
  jmp took_exception
%else
  jmp took_external
%endif
%assign vector vector + 1
%endrep

took_external:
  mov dword [APIC + 0xb0], 0
  add rsp, 8
  iretq

took_nmi:
  add rsp, 8
  iretq

took_exception:
  mov al, 'X'
  call put
  mov ebp, 4
.word:
  pop rax
  call hex
  dec ebp
  jnz .word
  call newline
  jmp dead

; A line: 'C', then IA32_VMX_BASIC to IA32_VMX_VMFUNC.
print_capabilities:
  mov al, 'C'
  call put
  mov ebp, 0x480
.msr:
  mov ecx, ebp
  rdmsr
  shl rdx, 32
  or rax, rdx
  call hex
  inc ebp
  cmp ebp, 0x492
  jne .msr
  jmp newline

; A space and rax in hexadecimal without leading zeros
hex:
  push rbx
  push rcx
  mov rbx, rax
  mov al, ' '
  call put
  mov ecx, 64
.skip:
  sub ecx, 4
  jz .digit
  mov rax, rbx
  shr rax, cl
  test al, 15
  jz .skip
.digit:
  mov rax, rbx
  shr rax, cl
  and eax, 15
  mov al, [digits + rax]
  call put
  sub ecx, 4
  jns .digit
  pop rcx
  pop rbx
  ret

newline:
  mov al, 10
put:
  push rdx
  mov edx, 0x378
  out dx, al
  mov edx, 0x37a
  mov al, 0x0d
  out dx, al
  mov al, 0x0c
  out dx, al
  pop rdx
  ret

digits: db '0123456789abcdef'
shutdown: db 'Shutdown'
data_selector: dw 0x10
host_idtr:
  dw 0xfff
  dq HOST_IDT
align 8
revision: dq 0
operand: dq 0, 0
all_contexts: dq 0, 0
vmxon_pointer: dq VMXON_REGION
vmcs_pointer: dq VMCS_REGION
ip: dq 0
return_ip: dq 0
enter_kind: dq 0
registers: times 16 dq 0
reported:
%include "reported.inc"
  dd -1
%include "programs.inc"
align 32
%include "orders.inc"
