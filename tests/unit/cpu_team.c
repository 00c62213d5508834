/* cpu_team.c - the thread team: every thread runs, barriers hold, chunks are given out once, and a
 * team with fewer cores than threads still gets on. */
#include "backends/cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum { ROUNDS = 200, CHUNKS = 37 };

struct job {
	struct team *team;
	atomic_int ran[8], taken[CHUNKS];
	int value[8];                     /* plain: a barrier must order them */
	atomic_int wrong;
	int rounds;
};

static void once(void *arg, int id) { atomic_fetch_add(&((struct job *)arg)->ran[id], 1); }

static void every_thread_runs(void **state)
{
	(void)state;
	for (int n = 1; n <= 8; n++) {
		struct job j = {.team = team_new(n, &(wf_error){0})};
		assert_non_null(j.team);
		assert_int_equal(team_size(j.team), n);
		for (int i = 0; i < 20; i++)
			team_run(j.team, once, &j);
		for (int i = 0; i < 8; i++)
			assert_int_equal(j.ran[i], i < n ? 20 : 0);
		team_free(j.team);
	}
}

/* Each round every thread writes its value, then reads its neighbour's. */
static void relay(void *arg, int id)
{
	struct job *j = arg;
	int n = team_size(j->team);

	for (int i = 1; i <= j->rounds; i++) {
		j->value[id] = i;
		team_barrier(j->team, id);
		if (j->value[(id + 1) % n] != i)
			atomic_fetch_add(&j->wrong, 1);
		team_barrier(j->team, id);
	}
}

static void barriers_order(void **state)
{
	(void)state;
	for (int n = 1; n <= 5; n++) {
		struct job j = {.team = team_new(n, &(wf_error){0}), .rounds = ROUNDS};
		assert_non_null(j.team);
		team_run(j.team, relay, &j);
		assert_int_equal(j.wrong, 0);
		team_free(j.team);
	}
}

static void claim(void *arg, int id)
{
	struct job *j = arg;

	for (int i = 0; i < 3; i++) {
		for (int64_t c; (c = team_next(j->team, CHUNKS)) < CHUNKS; )
			atomic_fetch_add(&j->taken[c], 1);
		team_barrier(j->team, id);
	}
}

static void chunks_once(void **state)
{
	struct job j = {.team = team_new(4, &(wf_error){0})};

	(void)state;
	assert_non_null(j.team);
	team_run(j.team, claim, &j);
	team_run(j.team, claim, &j);
	for (int i = 0; i < CHUNKS; i++)
		assert_int_equal(j.taken[i], 6);
	team_free(j.team);
}

/* Four threads on one core: a barrier must not cost a time slice of each. */
static void crowded(void **state)
{
	cpu_set_t before, one;
	struct timespec a, b;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &before))
			CPU_SET(i, &one);
	assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
	struct job j = {.team = team_new(4, &(wf_error){0}), .rounds = 1000};
	assert_non_null(j.team);
	clock_gettime(CLOCK_MONOTONIC, &a);
	team_run(j.team, relay, &j);
	clock_gettime(CLOCK_MONOTONIC, &b);
	double each = ((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9) / 2000;
	print_message("4 threads on 1 core: %.1f us a barrier\n", each * 1e6);
	assert_true(each < 1e-3);
	assert_int_equal(j.wrong, 0);
	team_free(j.team);
	sched_setaffinity(0, sizeof before, &before);
}

static void refuses(void **state)
{
	wf_error err = {0};

	(void)state;
	assert_null(team_new(-1, &err));
	assert_true(err.set);
	team_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_thread_runs),
		cmocka_unit_test(barriers_order),
		cmocka_unit_test(chunks_once),
		cmocka_unit_test(crowded),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
