/** Bits of the VM-execution, VM-exit and VM-entry controls (SDM vol. 3, 25.6 to 25.8), as masks. */
export const Pin = {
  EXTERNAL_INTERRUPT: 1 << 0,
  NMI: 1 << 3,
  VIRTUAL_NMIS: 1 << 5,
  PREEMPTION_TIMER: 1 << 6,
  POSTED_INTERRUPTS: 1 << 7,
} as const

export const Primary = {
  INTERRUPT_WINDOW: 1 << 2,
  TSC_OFFSETTING: 1 << 3,
  HLT: 1 << 7,
  INVLPG: 1 << 9,
  MWAIT: 1 << 10,
  RDPMC: 1 << 11,
  RDTSC: 1 << 12,
  CR3_LOAD: 1 << 15,
  CR3_STORE: 1 << 16,
  CR8_LOAD: 1 << 19,
  CR8_STORE: 1 << 20,
  TPR_SHADOW: 1 << 21,
  NMI_WINDOW: 1 << 22,
  MOV_DR: 1 << 23,
  UNCONDITIONAL_IO: 1 << 24,
  IO_BITMAPS: 1 << 25,
  MONITOR_TRAP: 1 << 27,
  MSR_BITMAPS: 1 << 28,
  MONITOR: 1 << 29,
  PAUSE: 1 << 30,
  SECONDARY: 1 << 31,
} as const

export const Secondary = {
  APIC_ACCESSES: 1 << 0,
  EPT: 1 << 1,
  DESCRIPTOR_TABLE: 1 << 2,
  RDTSCP: 1 << 3,
  X2APIC: 1 << 4,
  VPID: 1 << 5,
  WBINVD: 1 << 6,
  UNRESTRICTED_GUEST: 1 << 7,
  APIC_REGISTERS: 1 << 8,
  VIRTUAL_INTERRUPTS: 1 << 9,
  PAUSE_LOOP: 1 << 10,
  RDRAND: 1 << 11,
  INVPCID: 1 << 12,
  VM_FUNCTIONS: 1 << 13,
  VMCS_SHADOWING: 1 << 14,
} as const

export const ExitControl = {
  SAVE_DEBUG: 1 << 2,
  HOST_64_BIT: 1 << 9,
  LOAD_PERF: 1 << 12,
  ACKNOWLEDGE: 1 << 15,
  SAVE_PAT: 1 << 18,
  LOAD_PAT: 1 << 19,
  SAVE_EFER: 1 << 20,
  LOAD_EFER: 1 << 21,
  SAVE_PREEMPTION_TIMER: 1 << 22,
} as const

export const EntryControl = {
  LOAD_DEBUG: 1 << 2,
  IA32E_GUEST: 1 << 9,
  TO_SMM: 1 << 10,
  DEACTIVATE_DUAL_MONITOR: 1 << 11,
  LOAD_PERF: 1 << 13,
  LOAD_PAT: 1 << 14,
  LOAD_EFER: 1 << 15,
} as const

/** Guest interruptibility state (SDM vol. 3, 25.4.2). */
export const Blocking = { STI: 1, MOV_SS: 2, SMI: 4, NMI: 8 } as const

export const Activity = { ACTIVE: 0, HLT: 1, SHUTDOWN: 2, WAIT_FOR_SIPI: 3 } as const

/** Interruption types of the entry, exit and IDT-vectoring information (SDM vol. 3, 25.8.3 and 25.9.2). */
export const Interruption = {
  EXTERNAL: 0,
  NMI: 2,
  HARDWARE_EXCEPTION: 3,
  SOFTWARE_INTERRUPT: 4,
  PRIVILEGED_SOFTWARE_EXCEPTION: 5,
  SOFTWARE_EXCEPTION: 6,
  OTHER: 7,
} as const

export const INFO_VALID = 0x8000_0000
export const INFO_ERROR_CODE = 1 << 11
export const INFO_NMI_UNBLOCKED = 1 << 12

/** RFLAGS bits. */
export const Flag = { TF: 1 << 8, IF: 1 << 9, VM: 1 << 17 } as const

/** Basic exit reasons (SDM vol. 3, appendix C). */
export const ExitReason = {
  EXCEPTION_OR_NMI: 0,
  EXTERNAL_INTERRUPT: 1,
  TRIPLE_FAULT: 2,
  INTERRUPT_WINDOW: 7,
  NMI_WINDOW: 8,
  CPUID: 10,
  HLT: 12,
  INVD: 13,
  INVLPG: 14,
  RDPMC: 15,
  RDTSC: 16,
  VMCALL: 18,
  VMXOFF: 26,
  CONTROL_REGISTER: 28,
  MOV_DR: 29,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  INVALID_GUEST_STATE: 33,
  MSR_LOADING: 34,
  MWAIT: 36,
  MONITOR_TRAP: 37,
  MONITOR: 39,
  PAUSE: 40,
  TPR_BELOW_THRESHOLD: 43,
  APIC_ACCESS: 44,
  VIRTUALIZED_EOI: 45,
  EPT_VIOLATION: 48,
  EPT_MISCONFIGURATION: 49,
  RDTSCP: 51,
  PREEMPTION_TIMER: 52,
  WBINVD: 54,
  XSETBV: 55,
  APIC_WRITE: 56,
} as const

/** Bit 31 of the exit reason. */
export const ENTRY_FAILURE = 0x8000_0000

/** Numbers of the VM-instruction error field (SDM vol. 3, 31.4). */
export const VmError = {
  VMCLEAR_ADDRESS: 2,
  VMCLEAR_VMXON_POINTER: 3,
  VMLAUNCH_NOT_CLEAR: 4,
  VMRESUME_NOT_LAUNCHED: 5,
  ENTRY_CONTROLS: 7,
  ENTRY_HOST_STATE: 8,
  VMPTRLD_ADDRESS: 9,
  VMPTRLD_VMXON_POINTER: 10,
  VMPTRLD_REVISION: 11,
  NO_SUCH_FIELD: 12,
  READ_ONLY_FIELD: 13,
  VMXON_IN_ROOT: 15,
  ENTRY_AFTER_MOV_SS: 26,
  INVALIDATION_OPERAND: 28,
} as const

/** VMfailInvalid: there is no current VMCS to hold an error number. */
export const VM_FAIL_INVALID = -1
export const VM_SUCCEED = 0
