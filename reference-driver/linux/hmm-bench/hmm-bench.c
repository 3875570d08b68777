// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Times the same work on two drivers with test_hmm's ioctls: hmm-bench BASE-NODE NEW-NODE [ROUNDS].
 *
 * Each round does each piece of work on one driver and then on the other, in turn who is first, on memory
 * that is fresh. Only the driver that works mirrors the address space meanwhile: the other one's callbacks
 * would count as its work, and test_hmm returns early from those of its own migrations. Prints a line for each work: name, throughput of NEW over BASE, 99th percentiles of both
 * in nanoseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* lib/test_hmm_uapi.h */
struct cmd {
	uint64_t addr, ptr, npages, cpages, faults;
};
#define READ _IOWR('H', 0x00, struct cmd)
#define TO_DEV _IOWR('H', 0x02, struct cmd)
#define TO_SYS _IOWR('H', 0x03, struct cmd)
#define EXCLUSIVE _IOWR('H', 0x05, struct cmd)

#define PAGES 512UL
#define SIZE (PAGES * 4096)

enum work { FAULT, TO_DEVICE, BACK, THP_TO_DEVICE, THP_BACK, CPU_BACK, RESERVE, REVOKE, WORKS };
static const char *const names[WORKS] = {
	"read-fault-512", "migrate-to-device", "migrate-back", "migrate-thp-to-device",
	"migrate-thp-back", "cpu-fault-back-512", "exclusive-512", "revoke-512",
};

static char *area, *data;
static uint64_t *times[WORKS][2];

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* How long a call over all pages takes. */
static uint64_t call(int fd, unsigned long request)
{
	struct cmd cmd = { .addr = (uintptr_t)area, .ptr = (uintptr_t)data, .npages = PAGES };
	uint64_t start = now();

	if (ioctl(fd, request, &cmd))
		die("ioctl");
	start = now() - start;
	/* test_hmm counts a folio as one where it goes back. */
	if (cmd.cpages != PAGES && request != TO_SYS) {
		fprintf(stderr, "%lx: %lu of %lu pages\n", request, (long)cmd.cpages, PAGES);
		exit(2);
	}
	return start;
}

static uint64_t touch(void)
{
	uint64_t start = now();

	for (unsigned long i = 0; i < PAGES; i++)
		((volatile char *)area)[i * 4096]++;
	return now() - start;
}

/* Memory that nobody has seen, written by the CPU. */
static void fresh(int advice)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	if (mmap(area, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		die("mmap");
	madvise(area, SIZE, advice);
	touch();
}

static void round_on(const char *node, int who, int round)
{
#define NOTE(work, time) (times[work][who][round] = (time))
	int fd = open(node, O_RDWR);

	if (fd < 0)
		die(node);
	/* What a driver keeps for a file is there before anything counts. */
	fresh(MADV_NOHUGEPAGE);
	call(fd, READ);
	fresh(MADV_NOHUGEPAGE);
	NOTE(FAULT, call(fd, READ));
	fresh(MADV_NOHUGEPAGE);
	NOTE(TO_DEVICE, call(fd, TO_DEV));
	NOTE(BACK, call(fd, TO_SYS));
	call(fd, TO_DEV);
	NOTE(CPU_BACK, touch());
	fresh(MADV_HUGEPAGE);
	NOTE(THP_TO_DEVICE, call(fd, TO_DEV));
	NOTE(THP_BACK, call(fd, TO_SYS));
	fresh(MADV_NOHUGEPAGE);
	NOTE(RESERVE, call(fd, EXCLUSIVE));
	NOTE(REVOKE, touch());
	close(fd);
}

/* Another process has the nodes open all the time, so that no driver gives up what it keeps for users. */
static void hold(char *const nodes[])
{
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (child)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int who = 0; who < 2; who++) {
		if (open(nodes[who], O_RDWR) < 0)
			die(nodes[who]);
	}
	for (;;)
		pause();
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	int rounds = argc > 3 ? atoi(argv[3]) : 200;

	if (argc < 3 || rounds < 1)
		return 2;
	hold(argv + 1);
	for (int who = 0; who < 2; who++) {
		for (int work = 0; work < WORKS; work++)
			times[work][who] = calloc(rounds, sizeof(uint64_t));
	}
	area = mmap(NULL, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	area = (char *)(((uintptr_t)area + SIZE - 1) & ~(SIZE - 1));
	data = malloc(SIZE);
	memset(data, 1, SIZE);
	/* The first round warms up. */
	for (int round = -1; round < rounds; round++) {
		for (int turn = 0; turn < 2; turn++) {
			int who = (round + turn) & 1;

			round_on(argv[1 + who], who, round < 0 ? 0 : round);
		}
	}
	for (int work = 0; work < WORKS; work++) {
		double sum[2] = { 0, 0 };

		for (int who = 0; who < 2; who++) {
			for (int round = 0; round < rounds; round++)
				sum[who] += times[work][who][round];
			qsort(times[work][who], rounds, sizeof(uint64_t), by_time);
		}
		int at = rounds * 99 / 100, middle = rounds / 2;

		if (at == rounds)
			at--;
		printf("%-22s ratio %.2f median %.2f p99 %llu %llu\n", names[work],
		       sum[0] / sum[1],
		       (double)times[work][0][middle] / times[work][1][middle],
		       (unsigned long long)times[work][0][at],
		       (unsigned long long)times[work][1][at]);
	}
	return 0;
}
