export * from './disk-backend.ts'
