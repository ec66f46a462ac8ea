/**
 * Cases in which our model and Bochs 2.7 answer differently, and the section of SDM vol. 3 that settles it.
 * The test holds this list from both sides: a difference that is not here fails, and so does one that is gone.
 */
export interface Difference {
  /** The name of the case. */
  readonly name: string
  readonly sdm: string
  /** What the SDM says; the model does that. */
  readonly says: string
}

export const DIFFERENCES: readonly Difference[] = [
  {
    name: 'entry to SMM from outside SMM',
    sdm: '27.2.1.3',
    says: 'outside SMM the control must be 0, a check of the controls: VMfail 7, not reason 33',
  },
  {
    name: 'an unrestricted IA-32e guest without paging',
    sdm: '27.3.1.1',
    says: 'with the IA-32e mode guest control, CR0.PG must be 1, unrestricted or not',
  },
  {
    name: 'a loaded DEBUGCTL with a reserved bit',
    sdm: '27.3.1.1',
    says: 'with the load debug controls control, reserved bits of the DEBUGCTL field must be 0',
  },
  {
    name: 'guest RIP whose bits 63 to 48 differ',
    sdm: '27.3.1.4',
    says: 'bits 63:N of RIP must be alike in 64-bit mode, N being 48: reason 33, not #GP in the guest',
  },
  {
    name: 'bit 63 of the pending debug exceptions',
    sdm: '27.3.1.5',
    says: 'bits 63:17 of the field must be 0',
  },
  {
    name: 'MOV SS blocking with TF but no pending single step',
    sdm: '27.3.1.5',
    says: 'under MOV SS blocking with TF set and BTF clear, the pending single step (bit 14) must be 1',
  },
  {
    name: 'MOV SS blocking without TF but a pending single step',
    sdm: '27.3.1.5',
    says: 'under MOV SS blocking with TF clear, the pending single step (bit 14) must be 0',
  },
  {
    name: 'REP OUTS of nothing',
    sdm: 'vol. 2B, REP',
    says: 'with a count of zero the string instruction is executed zero times, so there is nothing to exit',
  },
  {
    name: 'the page of the guest PML4 is read-only, with accessed and dirty flags',
    sdm: 'table 28-7',
    says: 'an access to guest paging structures counts as a write then, and sets both bit 0 and bit 1',
  },
  {
    name: 'a leaf of 2 MiB with address bit 12',
    sdm: '29.3.3.1',
    says: 'bits 20:12 of a directory entry that maps a page are reserved: a misconfiguration',
  },
  {
    name: 'an NMI is injected while a virtual NMI blocks',
    sdm: '27.3.1.5',
    says: 'with virtual NMIs, blocking by NMI must be 0 if an NMI is injected',
  },
  {
    name: 'a divide error is injected into a halted guest',
    sdm: '27.3.1.5',
    says: 'of hardware exceptions only debug exceptions and machine checks may be injected in the HLT state',
  },
  {
    name: 'a pending interrupt with exiting and acknowledgement',
    sdm: '26.2',
    says: 'with external-interrupt exiting an interrupt exits whatever RFLAGS.IF is',
  },
  {
    name: 'a pending interrupt with exiting, not acknowledged',
    sdm: '26.2',
    says: 'with external-interrupt exiting an interrupt exits whatever RFLAGS.IF is',
  },
]
