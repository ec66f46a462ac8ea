/** Who can break a rule: the two ends of a device, and the two ends of a vhost-user connection. */
export type Party = 'driver' | 'device' | 'front-end' | 'back-end'

/**
 * The typed requirement set: every rule a peer can be seen to break, by name. A name says what the rule is
 * about and never changes; `ref` is where the specification states it.
 */
export interface RequirementText {
  /** Who is bound by it. */
  readonly party: Party | 'both'
  readonly level: 'must' | 'should'
  /** The rule in our words, as a sentence that completes "… broke X: …". */
  readonly text: string
  readonly ref: string
}

const SPLIT = 'VIRTIO 1.2 section 2.7'
const driver = (text: string, ref: string): RequirementText => ({ party: 'driver', level: 'must', text, ref })
const device = (text: string, ref: string): RequirementText => ({ party: 'device', level: 'must', text, ref })
const vhost =
  (party: RequirementText['party'], level: RequirementText['level'] = 'must') =>
  (text: string, section: string): RequirementText => ({ party, level, text, ref: `vhost-user, ${section}` })
const frontEnd = vhost('front-end')
const backEnd = vhost('back-end')
const bothEnds = vhost('both')
const frontEndShould = vhost('front-end', 'should')

export const REQUIREMENTS = {
  // Split ring, driver's duties as the device sees them.
  'split.area-backed': driver('ring areas lie in memory, aligned, and do not overlap', `${SPLIT}`),
  'split.queue-size': driver('a queue size is a power of two up to the maximum offered', `${SPLIT}`),
  'split.available-leap': driver('the available index is at most a queue size ahead', `${SPLIT}.13`),
  'split.head-range': driver('a head is a descriptor of this queue', `${SPLIT}.13.2`),
  'split.head-in-flight': driver('a head is not offered again before it was used', `${SPLIT}.13.1`),
  'split.next-range': driver('next is a descriptor of this table', `${SPLIT}.5`),
  'split.chain-length': driver('a chain is no longer than the queue', `${SPLIT}.5.3.1`),
  'split.readable-after-writable': driver('readable buffers come before writable ones', `${SPLIT}.4.2`),
  'split.buffer-backed': driver('a buffer lies in memory the device can reach', `${SPLIT}.5`),
  'split.chain-bytes': driver('a chain is at most 2^32 bytes', `${SPLIT}.5.2`),
  'split.indirect-not-negotiated': driver('no indirect table without INDIRECT_DESC', `${SPLIT}.5.3.1`),
  'split.indirect-nested': driver('an indirect table has no indirect descriptor', `${SPLIT}.5.3.1`),
  'split.indirect-with-next': driver('INDIRECT and NEXT are not set together', `${SPLIT}.5.3.1`),
  'split.indirect-length': driver(
    'an indirect table is a whole number of descriptors, at least one and at most a queue size',
    `${SPLIT}.5.3`,
  ),
  'split.indirect-backed': driver('an indirect table lies in memory the device can reach', `${SPLIT}.5.3`),
  // Split ring, device's duties as the driver sees them.
  'split.used-leap': device('the used index advances by at most what is outstanding', `${SPLIT}.8`),
  'split.used-id': device('a used id is the head of an outstanding chain', `${SPLIT}.8`),
  'split.used-length': device('a used length is at most what was writable', `${SPLIT}.8.2`),
  // Device status and negotiation.
  'status.bit-cleared': driver('a status bit is not cleared one by one', 'VIRTIO 1.2 section 2.1.1'),
  'status.order': driver('initialization goes step by step', 'VIRTIO 1.2 section 3.1.1'),
  'status.unknown-bit': driver('only defined status bits are set', 'VIRTIO 1.2 section 2.1'),
  'features.not-offered': driver('only offered features are accepted', 'VIRTIO 1.2 section 2.2.1'),
  'features.version-1': driver('VERSION_1 is accepted', 'VIRTIO 1.2 section 6.1'),
  'features.prerequisite': driver(
    'a feature is accepted along with what it needs',
    'VIRTIO 1.2 section 2.2.1',
  ),
  'features.frozen': driver('features are not written after FEATURES_OK', 'VIRTIO 1.2 section 3.1.1'),
  'device.features-prerequisite': device(
    'a feature is offered along with what it needs',
    'VIRTIO 1.2 section 2.2.2',
  ),
  'device.version-1': device('VERSION_1 is offered', 'VIRTIO 1.2 section 6.2'),
  'device.features-refused': device('an offered subset is accepted', 'VIRTIO 1.2 section 2.2.2'),
  'device.reset-answer': device('status reads 0 once a reset is done', 'VIRTIO 1.2 section 2.4.1'),
  'device.config-stable': device(
    'the generation changes with the configuration only',
    'VIRTIO 1.2 section 2.5.2',
  ),
  'device.needs-reset': device(
    'DEVICE_NEEDS_RESET is for errors the device cannot recover from',
    'VIRTIO 1.2 section 2.1.2',
  ),
  'queue.before-driver-ok': driver('no notification before DRIVER_OK', 'VIRTIO 1.2 section 3.1.1'),
  // MMIO registers.
  'mmio.register-width': driver(
    'control registers are read and written as aligned 32 bits',
    'VIRTIO 1.2 section 4.2.2.2',
  ),
  'mmio.register-unknown': driver(
    'only defined registers are accessed, in their direction',
    'VIRTIO 1.2 section 4.2.2',
  ),
  'mmio.config-width': driver(
    'configuration is accessed in aligned units of 1, 2 or 4 bytes',
    'VIRTIO 1.2 section 4.2.2.2',
  ),
  'mmio.queue-range': driver('a selected or notified queue exists', 'VIRTIO 1.2 section 4.2.2'),
  'mmio.queue-live': driver('a queue is not changed while it is ready', 'VIRTIO 1.2 section 4.2.2.2'),
  'mmio.interrupt-ack': driver('only bits of InterruptStatus are acknowledged', 'VIRTIO 1.2 section 4.2.2.2'),
  'mmio.config-read-only': driver(
    'only writable configuration fields are written',
    'VIRTIO 1.2 section 2.5.1',
  ),
  'mmio.identity': device('magic value and version are those of virtio-mmio', 'VIRTIO 1.2 section 4.2.2.1'),
  'mmio.queue-absent': device('a queue the device type needs exists', 'VIRTIO 1.2 section 4.2.2.1'),
  // Block device.
  'block.header-short': driver('a request has a 16-byte readable header', 'VIRTIO 1.2 section 5.2.6'),
  'block.status-absent': driver('a request ends in a writable status byte', 'VIRTIO 1.2 section 5.2.6'),
  'block.data-direction': driver('data lies on the side its request type says', 'VIRTIO 1.2 section 5.2.6'),
  'block.data-length': driver(
    'data is whole sectors, or the structure the type says',
    'VIRTIO 1.2 section 5.2.6.1',
  ),
  'block.range': driver('a request stays within the capacity', 'VIRTIO 1.2 section 5.2.6.1'),
  'block.read-only': driver('nothing is written to a read-only device', 'VIRTIO 1.2 section 5.2.6.1'),
  'block.id-length': driver('the room of a GET_ID is 20 bytes', 'VIRTIO 1.2 section 5.2.6.1'),
  'block.not-negotiated': driver(
    'a request type is used with its feature only',
    'VIRTIO 1.2 section 5.2.6.1',
  ),
  'block.segment-count': driver(
    'a discard, zeroes or erase has no more segments than offered',
    'VIRTIO 1.2 section 5.2.6.1',
  ),
  'block.segment-sectors': driver(
    'a discard, zeroes or erase segment is no longer than offered',
    'VIRTIO 1.2 section 5.2.6.1',
  ),
  'block.segment-flags': driver('a segment sets only flags its type defines', 'VIRTIO 1.2 section 5.2.6.1'),
  'block.flush-sector': driver('a flush has sector 0 and no data', 'VIRTIO 1.2 section 5.2.6.1'),
  'block.status-value': device('a status is one of those defined', 'VIRTIO 1.2 section 5.2.6'),
  'block.status-written': device(
    'the status byte is written before the buffer is used',
    'VIRTIO 1.2 section 5.2.6.2',
  ),
  'block.capacity': device('a capacity and block size are usable', 'VIRTIO 1.2 section 5.2.4'),
  // vhost-user: what a message is, whoever sends it.
  'vhost.version': bothEnds('the version of a message is 1', 'Header'),
  'vhost.flags': bothEnds('a request has no flags but its version and NEED_REPLY', 'Header'),
  'vhost.request-unknown': bothEnds('only messages that are defined are sent', 'Message types'),
  'vhost.payload-size': bothEnds('a payload has the size its message says', 'Payload'),
  'vhost.descriptor-count': bothEnds('as many descriptors ride along as the message takes', 'Ancillary data'),
  'vhost.descriptor-kind': bothEnds('a descriptor is of the kind its message needs', 'Ancillary data'),
  'vhost.gate': bothEnds('a message is sent only with the features it needs', 'Protocol features'),
  'vhost.stream-end': bothEnds('a connection ends between two messages', 'Communication'),
  'vhost.reply-flag': bothEnds('a reply has the REPLY flag', 'Header'),
  'vhost.reply-request': bothEnds('a reply is to the request that was sent last', 'Communication'),
  'vhost.feature-not-offered': frontEnd('only features that the back-end offers are accepted', 'Features'),
  'vhost.feature-prerequisite': bothEnds(
    'a protocol feature comes along with those it needs',
    'Protocol features',
  ),
  // Rings, as the back-end sees them.
  'vhost.ring-index': frontEnd('a ring is one that the back-end has', 'VHOST_USER_SET_VRING_NUM'),
  'vhost.ring-size': frontEnd(
    'a ring size is a power of two that the back-end can serve',
    'VHOST_USER_SET_VRING_NUM',
  ),
  'vhost.ring-base': frontEnd('a ring position is 16 bits', 'VHOST_USER_SET_VRING_BASE'),
  'vhost.ring-live': frontEnd('size and position of a ring change while it is stopped', 'Ring states'),
  'vhost.ring-address': frontEnd('a ring lies in memory of the table', 'VHOST_USER_SET_VRING_ADDR'),
  'vhost.ring-incomplete': frontEnd('a ring is started once it has a size and addresses', 'Ring states'),
  'vhost.ring-zero': frontEnd('num is zero where it says nothing', 'VHOST_USER_GET_VRING_BASE'),
  'vhost.ring-switch': frontEnd('a ring is enabled by 1 and disabled by 0', 'VHOST_USER_SET_VRING_ENABLE'),
  // Memory, as the back-end sees it.
  'vhost.region-range': frontEnd('a region is whole pages and wraps nothing', 'Memory region description'),
  'vhost.region-overlap': frontEnd('regions do not overlap', 'Memory region description'),
  'vhost.region-backed': frontEnd('what a region is mapped from is that long', 'Memory region description'),
  'vhost.region-unknown': frontEnd('a region that is removed is there', 'VHOST_USER_REM_MEM_REG'),
  'vhost.region-slots': frontEnd('there are no more regions than slots', 'VHOST_USER_GET_MAX_MEM_SLOTS'),
  'vhost.memory-size': frontEnd(
    'all regions together are no longer than the back-end maps',
    'Memory region description',
  ),
  'vhost.region-stray': frontEndShould('no descriptor comes with a removal', 'VHOST_USER_REM_MEM_REG'),
  'vhost.memory-unsealed': frontEndShould('shared memory is sealed against shrinking', 'Memory access'),
  'vhost.memory-shrunk': frontEnd('shared memory keeps its length', 'Memory access'),
  'vhost.log-range': frontEnd('the dirty log reaches as far as the memory does', 'VHOST_USER_SET_LOG_BASE'),
  'vhost.inflight-shape': frontEnd(
    'the tracking buffer fits the queues it is for',
    'VHOST_USER_SET_INFLIGHT_FD',
  ),
  'vhost.config-range': frontEnd('configuration is accessed within its size', 'VHOST_USER_GET_CONFIG'),
  'vhost.config-flags': frontEnd('a write says who makes it', 'VHOST_USER_SET_CONFIG'),
  // What a back-end owes, as the front-end sees it.
  'vhost.refused': backEnd('a request that is well-formed is carried out', 'VHOST_USER_PROTOCOL_F_REPLY_ACK'),
  'vhost.reply-unasked': backEnd('only what was asked is answered', 'Communication'),
  'vhost.reply-config': backEnd(
    'as much configuration is answered as was asked, from the same place',
    'VHOST_USER_GET_CONFIG',
  ),
  'vhost.reply-queues': backEnd(
    'there is at least one queue, and an index for each',
    'VHOST_USER_GET_QUEUE_NUM',
  ),
  'vhost.reply-base': backEnd(
    'a ring that is stopped has no request out, and tells where it stopped',
    'VHOST_USER_GET_VRING_BASE',
  ),
  'vhost.reply-inflight': backEnd(
    'the tracking buffer comes with one descriptor, which is that long',
    'VHOST_USER_GET_INFLIGHT_FD',
  ),
} as const satisfies { readonly [id: string]: RequirementText }

export type RequirementId = keyof typeof REQUIREMENTS
