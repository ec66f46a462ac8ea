import { defineConfig } from 'vitest/config'
import { seededFaults } from './test/faults/seeded-faults.ts'

export default defineConfig({
  plugins: [seededFaults()],
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/seed.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
