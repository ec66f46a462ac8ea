export * from './device-cases.ts'
export * from './device-subject.ts'
export * from './disk-backend.ts'
export * from './requirement-case.ts'
