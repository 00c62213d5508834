/* tokenizer_speed.c - time grows as n log n, whatever the text: 10 MB of the worst of them within 2 s. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>
#include "tokens.h"

#ifdef WF_SANITIZE
enum { SIZE = 500 * 1000 };
#else
enum { SIZE = 10 * 1000 * 1000 };
#endif

static char text[SIZE];

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);     /* the machine may be busy with other things */
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(const char *with)
{
	size_t n = strlen(with);

	for (size_t i = 0; i < SIZE; i++)
		text[i] = with[i % n];
}

static void timed(const char *file, const char *with)
{
	struct opened o = open_file(file);
	double start = seconds();
	int32_t *ids;
	size_t n;

	fill(with);
	n = encode(&o, text, SIZE, 0, &ids);
	start = seconds() - start;
	free(ids);
	close_file(&o);
	assert_true(n > 0);
	print_message("%s, \"%s\" repeated: %.2f s\n", file, with, start);
	assert_true(start < 2);
}

static void one_character(void **unused) { (void)unused; timed(DATA "byte_level.json", "a"); }
static void spaces(void **unused) { (void)unused; timed(DATA "llama.json", " "); }
static void spaces_by_score(void **unused) { (void)unused; timed(DATA "bpe.model", " "); }

/* One piece of all the text, with many different pairs to join. */
static void no_spaces(void **unused) { (void)unused; timed(DATA "llama.json", "thequickbrownfoxjumpsoverthelazydogs"); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_character), cmocka_unit_test(spaces), cmocka_unit_test(spaces_by_score),
		cmocka_unit_test(no_spaces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
