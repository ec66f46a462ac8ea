import { describe, expect, it } from 'vitest'
import { parseRoomTimes, roomTimes } from './profile.ts'

const node = (id: number, url: string, functionName = 'f') => ({ id, callFrame: { functionName, url } })
const NODES = [
  node(1, 'file:///a/dist/guest/kernel/irp.js'),
  node(2, 'file:///a/dist/guest/user.js'),
  node(3, 'file:///a/dist/host/disk/file.js'),
  node(4, 'node:fs'),
  node(5, '', '(garbage collector)'),
  node(6, 'file:///a/dist/guest/kernel/pnp/tree.js'),
]

describe('a profile by room', () => {
  it('gives each sample the time until the next, to the room of its function’s file', () => {
    const profile = {
      nodes: NODES,
      samples: [1, 6, 2, 3, 4, 5, 1],
      timeDeltas: [500, 10, 20, 30, 40, 50, 60],
    }
    // Sample i lasts as long as delta i + 1 says; the last one's end is not known.
    expect(roomTimes(profile, 10)).toEqual([
      { room: 'garbage collector', nsEach: 6000, share: 60 / 210 },
      { room: 'node', nsEach: 5000, share: 50 / 210 },
      { room: 'host/disk', nsEach: 4000, share: 40 / 210 },
      { room: 'guest/kernel', nsEach: 3000, share: 30 / 210 },
      { room: 'guest', nsEach: 3000, share: 30 / 210 },
    ])
  })

  it('is refused where a process printed something else', () => {
    expect(parseRoomTimes(JSON.stringify([{ room: 'a', nsEach: 1, share: 1 }]))).toHaveLength(1)
    for (const text of ['', '5', '[]', '[{}]', '[{"room":"a","nsEach":null,"share":1}]', '{"room":"a"}']) {
      expect(parseRoomTimes(text)).toBeNull()
    }
  })
})
