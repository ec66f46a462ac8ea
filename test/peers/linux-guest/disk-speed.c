/*
 * Keeps a disk busy with one kind of request and says how many it answered in how long:
 *
 *   disk-speed NAME DISK MILLISECONDS read|write direct|cached BLOCK-BYTES DEPTH
 *
 * Every page of the disk begins with its own number and goes on doing so: what is read is looked at, and what is
 * written was there before. "direct" is at places all over the disk, past the guest's page cache; "cached" is one
 * read after the other through it, emptied before, so that the guest's read-ahead decides what the disk is asked.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, DEPTH_MAX = 128 };

static const char *name, *disk_name;
static int disk, writing;
static uint64_t block_bytes, blocks;
static uint64_t chance = 88172645463325252u;
static char *buffers[DEPTH_MAX];
static struct iocb requests[DEPTH_MAX];

static void fail(const char *what, uint64_t seen, uint64_t expected)
{
	printf("GUEST wrong: %s of %s on %s, seen %llu, expected %llu\n", what, name, disk_name,
	       (unsigned long long)seen, (unsigned long long)expected);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t draw(void)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return chance;
}

static void check(const char *buffer, uint64_t block)
{
	uint32_t first, page = block * (block_bytes / PAGE);

	memcpy(&first, buffer, sizeof first);
	if (first != page)
		fail("a page", first, page);
}

static void prepare(unsigned slot)
{
	struct iocb *request = &requests[slot];
	uint64_t block = draw() % blocks;

	memset(request, 0, sizeof *request);
	request->aio_data = slot;
	request->aio_lio_opcode = writing ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
	request->aio_fildes = disk;
	request->aio_buf = (uintptr_t)buffers[slot];
	request->aio_nbytes = block_bytes;
	request->aio_offset = block * block_bytes;
	if (!writing)
		return;
	for (uint64_t at = 0; at < block_bytes; at += PAGE) {
		uint32_t page = (request->aio_offset + at) / PAGE;

		memcpy(buffers[slot] + at, &page, sizeof page);
	}
}

/* Answered requests. As many as come back together go out together, as a busy file system has it. */
static uint64_t direct(unsigned depth, uint64_t until)
{
	aio_context_t context = 0;
	struct io_event events[DEPTH_MAX];
	struct iocb *batch[DEPTH_MAX];
	uint64_t done = 0;
	long ready = depth, out = 0;

	if (syscall(SYS_io_setup, depth, &context) != 0)
		fail("io_setup", 0, 1);
	for (unsigned slot = 0; slot < depth; slot++)
		batch[slot] = &requests[slot];
	while (ready > 0 || out > 0) {
		for (long i = 0; i < ready; i++)
			prepare(batch[i] - requests);
		if (ready > 0 && syscall(SYS_io_submit, context, ready, batch) != ready)
			fail("io_submit", 0, ready);
		out += ready;
		long count = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
		if (count < 1)
			fail("io_getevents", 0, 1);
		ready = 0;
		for (long i = 0; i < count; i++) {
			unsigned slot = events[i].data;

			if (events[i].res != (int64_t)block_bytes)
				fail("the result", events[i].res, block_bytes);
			if (!writing)
				check(buffers[slot], requests[slot].aio_offset / block_bytes);
			batch[ready++] = &requests[slot];
		}
		out -= count;
		done += count;
		if (now() >= until)
			ready = 0;
	}
	return done;
}

static uint64_t cached(uint64_t until)
{
	uint64_t done = 0;

	for (; done == 0 || now() < until; done++) {
		uint64_t block = done % blocks;

		if (block == 0 && ioctl(disk, BLKFLSBUF) != 0)
			fail("emptying the cache", 0, 0);
		if (pread(disk, buffers[0], block_bytes, block * block_bytes) != (ssize_t)block_bytes)
			fail("the result", 0, block_bytes);
		check(buffers[0], block);
	}
	return done;
}

int main(int count, char **arguments)
{
	if (count != 8)
		return 2;
	name = arguments[1];
	disk_name = arguments[2];
	writing = strcmp(arguments[4], "write") == 0;
	int through_cache = strcmp(arguments[5], "cached") == 0;
	block_bytes = strtoull(arguments[6], NULL, 10);
	unsigned depth = atoi(arguments[7]);
	char path[64];
	uint64_t bytes = 0;

	snprintf(path, sizeof path, "/dev/%s", disk_name);
	disk = open(path, through_cache ? O_RDONLY : O_RDWR | O_DIRECT);
	if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) != 0)
		fail("opening", 0, 0);
	blocks = block_bytes < PAGE ? 0 : bytes / block_bytes;
	if (blocks == 0 || depth == 0 || depth > DEPTH_MAX)
		return 2;
	for (unsigned slot = 0; slot < depth; slot++) {
		if (posix_memalign((void **)&buffers[slot], PAGE, block_bytes) != 0)
			fail("memory", 0, block_bytes);
		memset(buffers[slot], 0x5a, block_bytes);
	}
	uint64_t from = now(), until = from + strtoull(arguments[3], NULL, 10) * 1000000;
	uint64_t done = through_cache ? cached(until) : direct(depth, until);

	printf("GUEST figure %s %s %llu %llu\n", name, disk_name, (unsigned long long)done,
	       (unsigned long long)(now() - from));
	return 0;
}
