/* place.c - packing against a checker that only knows what must not overlap. */
#include "graph/graph.h"

#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

enum { MAX = 400 };

static uint64_t rng;

static int pick(int n)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (int)((rng >> 33) % (uint64_t)n);
}

/* Few long lives among many short ones, as residuals among a layer's values. */
static void fill(struct place_item *item, int n)
{
	int end = n / 2 + 2;

	for (int i = 0; i < n; i++) {
		int first = pick(end), last = first + (pick(10) ? pick(5) : pick(end));
		item[i] = (struct place_item){.bytes = 64 * pick(1000), .first = first, .last = last < end ? last : end - 1};
	}
}

static int64_t most_live(const struct place_item *item, int n)
{
	int64_t most = 0;

	for (int k = 0; k <= n; k++) {
		int64_t bytes = 0;
		for (int i = 0; i < n; i++)
			bytes += item[i].first <= k && k <= item[i].last ? item[i].bytes : 0;
		most = bytes > most ? bytes : most;
	}
	return most;
}

static void check(const struct place_item *item, int n, int64_t peak)
{
	for (int i = 0; i < n; i++) {
		const struct place_item *a = &item[i];
		assert_true(a->offset >= 0 && a->offset % 64 == 0 && a->offset + a->bytes <= peak);
		for (int j = 0; j < i; j++) {
			const struct place_item *b = &item[j];
			bool apart = a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
			if (!apart && a->first <= b->last && b->first <= a->last)
				fail_msg("items %d and %d of %d overlap", j, i, n);
		}
	}
}

static void random_intervals_pack_near_the_bound(void **state)
{
	struct place_item item[MAX], was[MAX];
	double sum = 0, worst = 0;
	int trials = 100;

	(void)state;
	rng = 20240607;
	for (int trial = 0; trial < trials; trial++) {
		int n = 1 + pick(trial % 25 ? 120 : MAX);
		fill(item, n);
		memcpy(was, item, sizeof item);
		int64_t peak = place_pack(item, n), bound = place_bound(item, n);
		assert_int_equal(bound, most_live(was, n));
		check(item, n, peak);
		for (int i = 0; i < n; i++)             /* in their places */
			assert_true(item[i].bytes == was[i].bytes && item[i].first == was[i].first
				&& item[i].last == was[i].last);
		double over = bound ? (double)peak / (double)bound : 1;
		sum += over;
		worst = over > worst ? over : worst;
	}
	print_message("over the bound: %.2f %% mean, %.2f %% worst\n", 100 * (sum / trials - 1), 100 * (worst - 1));
	assert_true(sum / trials < 1.01 && worst < 1.10);
}

static void equal_input_packs_equally(void **state)
{
	struct place_item a[100], b[100];

	(void)state;
	rng = 5;
	fill(a, 100);
	memcpy(b, a, sizeof a);
	assert_int_equal(place_pack(a, 100), place_pack(b, 100));
	for (int i = 0; i < 100; i++)
		assert_int_equal(a[i].offset, b[i].offset);
}

static void edges(void **state)
{
	struct place_item one = {.bytes = 64}, two[] = {{.bytes = 64, .last = 1}, {.bytes = 128, .first = 1, .last = 2}};
	struct place_item huge[] = {{.bytes = 1ll << 61, .last = 9}, {.bytes = 1ll << 61, .first = 9, .last = 9}};

	(void)state;
	assert_int_equal(place_pack(NULL, 0), 0);
	assert_int_equal(place_pack(&one, 1), 64);
	assert_int_equal(place_pack(two, 2), 192);      /* both are live in kernel 1 */
	two[0].last = 0;
	assert_int_equal(place_pack(two, 2), 128);
	assert_int_equal(place_pack(huge, 2), 1ll << 62);
}

/* ---- the pass ---- */

struct toy {
	wf_arena *arena;
	wf_error err;
	wf_graph g;
	wf_plan plan;
	wf_tensor tensor[8], *node[8];
	struct wf_value value[8];
};

static void toy_open(struct toy *t)
{
	*t = (struct toy){.arena = wf_arena_new()};
	assert_non_null(t->arena);
	for (int i = 0; i < 8; i++) {
		t->node[i] = &t->tensor[i];
		t->tensor[i].id = i;
		t->tensor[i].in[0] = i ? &t->tensor[i - 1] : NULL;
		t->value[i].kernel = -1;
	}
	t->g.node = t->node;
	t->g.nnode = 8;
	t->plan = (wf_plan){.g = &t->g, .arena = t->arena, .err = &t->err, .value = t->value};
}

static struct wf_value stored(int64_t bytes, int first, int last)
{
	return (struct wf_value){.kernel = first, .stored = true, .offset = -1, .bytes = bytes, .first = first, .last = last};
}

static void the_pass_places_what_is_stored(void **state)
{
	struct toy t;

	(void)state;
	toy_open(&t);
	t.value[1] = stored(100, 0, 1);                 /* two lines of 64 */
	t.value[2] = (struct wf_value){.kernel = 1, .bytes = 4096};   /* only inside its kernel */
	t.value[3] = stored(64, 1, 2);
	t.value[4] = stored(64, 2, 2), t.value[4].alias = true;
	t.value[5] = stored(64, 2, 2), t.value[5].alias = true;
	t.value[6] = stored(128, 2, 3);
	assert_int_equal(place_run(&t.plan), 0);
	assert_int_equal(t.plan.live_bytes, 192);
	assert_int_equal(t.plan.arena_bytes, 192);
	assert_int_equal(t.value[4].offset, t.value[3].offset);
	assert_int_equal(t.value[5].offset, t.value[3].offset);
	assert_int_equal(t.value[1].offset, t.value[6].offset);
	assert_int_equal(t.value[3].offset, t.value[1].offset ? 0 : 128);
	wf_arena_free(t.arena);
}

static void a_plan_of_nothing_has_no_buffer(void **state)
{
	struct toy t;

	(void)state;
	toy_open(&t);
	assert_int_equal(place_run(&t.plan), 0);
	assert_int_equal(t.plan.arena_bytes, 0);
	wf_arena_free(t.arena);
}

static void impossible_sizes_are_refused(void **state)
{
	struct toy t;

	(void)state;
	toy_open(&t);
	t.value[1] = stored(INT64_MAX - 10, 0, 1);
	assert_int_equal(place_run(&t.plan), -1);
	assert_non_null(strstr(t.err.text, "%1"));
	t.value[1] = stored(INT64_MAX / 2, 0, 1);
	t.value[2] = stored(INT64_MAX / 2, 0, 1);
	assert_int_equal(place_run(&t.plan), -1);
	t.value[1] = stored(-64, 0, 1);
	assert_int_equal(place_run(&t.plan), -1);
	wf_arena_free(t.arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_intervals_pack_near_the_bound),
		cmocka_unit_test(equal_input_packs_equally),
		cmocka_unit_test(edges),
		cmocka_unit_test(the_pass_places_what_is_stored),
		cmocka_unit_test(a_plan_of_nothing_has_no_buffer),
		cmocka_unit_test(impossible_sizes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
