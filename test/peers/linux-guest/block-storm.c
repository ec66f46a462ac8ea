/*
 * Keeps a disk busy and disbelieves it: many requests at once, every block written with its number, a sequence and
 * contents that follow from both, every answered write looked up again and again. Runs until a line comes on stdin.
 *
 * No block has two requests at once, so what it must hold is always one answer: an answered write that is undone,
 * by being lost or by an older one that runs again after it, is found.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 1024, DEPTH = 32, PER_ROUND = 2048, PER_MARK = 128 };

static uint64_t answered[BLOCKS]; /* sequence of the last write that was answered; 0: none yet */
static uint64_t asked[BLOCKS];    /* of the write that is out */
static char busy[BLOCKS];
static char *buffers[DEPTH];
static struct iocb requests[DEPTH];
static uint64_t chance = 88172645463325252u;
static int disk;

static uint64_t draw(void)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return chance;
}

static uint64_t word(uint64_t block, uint64_t sequence, unsigned at)
{
	uint64_t x = block * 0x9e3779b97f4a7c15u + sequence * 0xbf58476d1ce4e5b9u + at;

	x ^= x >> 31;
	return x * 0x94d049bb133111ebu;
}

static void fill(char *buffer, uint64_t block, uint64_t sequence)
{
	uint64_t *words = (uint64_t *)buffer;

	words[0] = block;
	words[1] = sequence;
	for (unsigned i = 2; i < BLOCK / 8; i++)
		words[i] = word(block, sequence, i);
}

static void fail(const char *what, uint64_t block, uint64_t seen, uint64_t expected)
{
	printf("GUEST wrong: %s, block %llu, seen %llu, expected %llu\n", what, (unsigned long long)block,
	       (unsigned long long)seen, (unsigned long long)expected);
	fflush(stdout);
	exit(1);
}

static void check(const char *buffer, uint64_t block)
{
	const uint64_t *words = (const uint64_t *)buffer;

	if (answered[block] == 0)
		return;
	if (words[0] != block)
		fail("number", block, words[0], block);
	if (words[1] != answered[block])
		fail("sequence", block, words[1], answered[block]);
	for (unsigned i = 2; i < BLOCK / 8; i++)
		if (words[i] != word(block, words[1], i))
			fail("contents", block, words[i], word(block, words[1], i));
}

static void submit(aio_context_t context, unsigned slot, int write, uint64_t block, uint64_t sequence)
{
	struct iocb *request = &requests[slot];

	memset(request, 0, sizeof *request);
	request->aio_data = slot;
	request->aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
	request->aio_fildes = disk;
	request->aio_buf = (uintptr_t)buffers[slot];
	request->aio_nbytes = BLOCK;
	request->aio_offset = (int64_t)block * BLOCK;
	busy[block] = 1;
	if (write) {
		asked[block] = sequence;
		fill(buffers[slot], block, sequence);
	}
	if (syscall(SYS_io_submit, context, 1, &request) != 1)
		fail("io_submit", block, 0, 1);
}

static unsigned settle(const struct io_event *event)
{
	unsigned slot = event->data;
	struct iocb *request = &requests[slot];
	uint64_t block = request->aio_offset / BLOCK;

	if (event->res != BLOCK)
		fail("result", block, event->res, BLOCK);
	if (request->aio_lio_opcode == IOCB_CMD_PWRITE)
		answered[block] = asked[block];
	else
		check(buffers[slot], block);
	busy[block] = 0;
	return slot;
}

/* One round: requests at random, then every block read. */
static uint64_t round_of(aio_context_t context, uint64_t round, uint64_t sequence)
{
	struct io_event events[DEPTH];
	unsigned idle[DEPTH], free_slots = DEPTH, out = 0, begun = 0, done = 0;
	const unsigned all = PER_ROUND + BLOCKS;

	for (unsigned i = 0; i < DEPTH; i++)
		idle[i] = i;
	while (done < all) {
		while (free_slots > 0 && begun < all) {
			int reading = begun >= PER_ROUND;
			uint64_t block = reading ? begun - PER_ROUND : draw() % BLOCKS;

			if (busy[block])
				break;
			submit(context, idle[--free_slots], !reading && draw() % 4 != 0, block, sequence++);
			begun++;
			out++;
		}
		long count = syscall(SYS_io_getevents, context, out > 0, DEPTH, events, NULL);

		if (count < 0)
			fail("io_getevents", 0, 0, 1);
		for (long i = 0; i < count; i++) {
			idle[free_slots++] = settle(&events[i]);
			out--;
			if (++done % PER_MARK == 0 && done < PER_ROUND)
				printf("GUEST mark %llu %u\n", (unsigned long long)round, done);
		}
		fflush(stdout);
	}
	if (fdatasync(disk) != 0)
		fail("flush", 0, 0, 0);
	printf("GUEST verified %llu\n", (unsigned long long)round);
	fflush(stdout);
	return sequence;
}

int main(int count, char **arguments)
{
	aio_context_t context = 0;
	struct pollfd input = { .fd = 0, .events = POLLIN };
	uint64_t sequence = 1;

	disk = count == 2 ? open(arguments[1], O_RDWR | O_DIRECT) : -1;
	if (disk < 0 || syscall(SYS_io_setup, DEPTH, &context) != 0)
		fail("start", 0, 0, 0);
	for (unsigned i = 0; i < DEPTH; i++)
		if (posix_memalign((void **)&buffers[i], BLOCK, BLOCK) != 0)
			fail("memory", 0, 0, 0);
	for (uint64_t round = 1; poll(&input, 1, 0) == 0; round++)
		sequence = round_of(context, round, sequence);
	printf("GUEST requests %llu\n", (unsigned long long)(sequence - 1));
	return 0;
}
