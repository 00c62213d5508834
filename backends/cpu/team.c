/* team.c - persistent threads that meet at barriers.
 *
 * Whoever waits spins for a while, then sleeps on a condition.  Kernels of a small model are tens of
 * microseconds long, a wake-up costs five: so spinning pays when every thread has a core.  When one
 * has not, a spinner keeps the others from finishing; so each wait that ends in sleep halves the
 * thread's patience, each that does not doubles it. */
#include "backends/cpu/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINE = 64, SPIN_MIN = 1000, SPIN_MAX = 50000 };   /* nanoseconds */

struct member {
	struct team *team;
	pthread_t thread;
	int id;
	long spin;                                   /* nanoseconds, its own */
} __attribute__((aligned(LINE)));

struct team {
	atomic_int nthread;
	void (*fn)(void *, int);
	void *arg;
	bool quit;
	_Alignas(LINE) atomic_uint round;            /* changes when all have arrived */
	_Alignas(LINE) atomic_int arrived;
	_Alignas(LINE) atomic_int_least64_t next;
	_Alignas(LINE) atomic_int asleep;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct member *member;
};

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void relax(void)
{
#if defined __x86_64__
	__builtin_ia32_pause();
#elif defined __aarch64__
	__asm__ volatile("yield");
#endif
}

static bool spin(struct team *t, unsigned round, long limit)
{
	long start = now();

	do
		for (int i = 0; i < 16; i++) {
			if (atomic_load_explicit(&t->round, memory_order_acquire) != round)
				return true;
			relax();
		}
	while (now() - start < limit);
	return false;
}

/* `asleep` is raised before `round` is read again, `round` changed before `asleep` is read: one of
 * the two sides sees the other. */
static void await(struct member *m, unsigned round)
{
	struct team *t = m->team;

	if (spin(t, round, m->spin)) {
		m->spin = m->spin * 2 < SPIN_MAX ? m->spin * 2 : SPIN_MAX;
		return;
	}
	m->spin = m->spin / 2 > SPIN_MIN ? m->spin / 2 : SPIN_MIN;
	pthread_mutex_lock(&t->lock);
	atomic_fetch_add(&t->asleep, 1);
	while (atomic_load(&t->round) == round)
		pthread_cond_wait(&t->wake, &t->lock);
	atomic_fetch_sub(&t->asleep, 1);
	pthread_mutex_unlock(&t->lock);
}

void team_barrier(struct team *t, int id)
{
	unsigned round = atomic_load(&t->round);

	if (atomic_fetch_add(&t->arrived, 1) + 1 < t->nthread) {
		await(&t->member[id], round);
		return;
	}
	atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
	atomic_store_explicit(&t->next, 0, memory_order_relaxed);
	atomic_store(&t->round, round + 1);
	if (!atomic_load(&t->asleep))
		return;
	pthread_mutex_lock(&t->lock);
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
}

int64_t team_next(struct team *t, int64_t n)
{
	int64_t i = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);

	return i < n ? i : n;
}

/* A run is two barriers: one that hands out the work, one that all leave it by. */
static void *work(void *arg)
{
	struct member *m = arg;
	struct team *t = m->team;

	for (;;) {
		team_barrier(t, m->id);
		if (t->quit)
			return NULL;
		t->fn(t->arg, m->id);
		team_barrier(t, m->id);
	}
}

void team_run(struct team *t, void (*fn)(void *arg, int id), void *arg)
{
	t->fn = fn;
	t->arg = arg;
	team_barrier(t, 0);
	fn(arg, 0);
	team_barrier(t, 0);
}

int team_size(const struct team *t) { return atomic_load(&t->nthread); }

static int usable_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static void release(struct team *t)
{
	pthread_cond_destroy(&t->wake);
	pthread_mutex_destroy(&t->lock);
	free(t->member);
	free(t);
}

void team_free(struct team *t)
{
	if (!t)
		return;
	t->quit = true;
	team_barrier(t, 0);
	for (int i = 1; i < t->nthread; i++)
		pthread_join(t->member[i].thread, NULL);
	release(t);
}

static struct team *team_alloc(int nthread)
{
	struct team *t = aligned_alloc(LINE, sizeof *t);

	if (!t)
		return NULL;
	memset(t, 0, sizeof *t);
	t->nthread = nthread;
	t->member = aligned_alloc(LINE, (size_t)nthread * sizeof *t->member);
	if (!t->member) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->wake, NULL);
	for (int i = 0; i < nthread; i++)
		t->member[i] = (struct member){.team = t, .id = i, .spin = SPIN_MAX};
	return t;
}

/* Kernels keep tiles of up to 100 KiB on the stack, more than some systems give a thread.  Signals are
 * the program's: a library's threads take none. */
static int start(struct member *m)
{
	pthread_attr_t attr;
	sigset_t every, before;
	int failed;

	if (pthread_attr_init(&attr))
		return -1;
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	failed = pthread_attr_setstacksize(&attr, 1 << 20) || pthread_create(&m->thread, &attr, work, m);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return failed ? -1 : 0;
}

/* Those that did start are at the first barrier or on their way: let them through as a smaller team
 * that ends.  Each counts itself before it asks how many there are. */
static struct team *give_up(struct team *t, int started)
{
	t->nthread = started;
	team_free(t);
	return NULL;
}

struct team *team_new(int nthread, wf_error *err)
{
	enum { MAXTHREAD = 1024 };
	struct team *t;

	if (nthread < 0 || nthread > MAXTHREAD) {
		wf_fail(err, "expected 1 to %d threads, found %d", MAXTHREAD, nthread);
		return NULL;
	}
	t = team_alloc(nthread ? nthread : usable_cpus());
	if (!t) {
		wf_fail(err, "no memory for a team of %d threads", nthread);
		return NULL;
	}
	for (int i = 1; i < t->nthread; i++)
		if (start(&t->member[i])) {
			wf_fail(err, "cannot start thread %d of %d", i + 1, t->nthread);
			return give_up(t, i);
		}
	return t;
}
