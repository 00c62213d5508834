/* json.c - the JSON reader: what it accepts, what it gives, what it refuses and how fast. */
#include "models/model.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static json_t *read_text(const char *text, wf_error *err)
{
	size_t n = strlen(text);
	char *exact = malloc(n ? n : 1);                /* not NUL-terminated: the end is the end */

	memcpy(exact, text, n);
	json_t *doc = json_read(err, "t", exact, n);
	free(exact);
	return doc;
}

/* Compact jansson text of what was read. */
static void good_documents(void **state)
{
	static const struct { const char *text, *want; } table[] = {
		{"null", "null"}, {" true ", "true"}, {"\r\n\tfalse", "false"}, {"{}", "{}"}, {"[ ]", "[]"},
		{"0", "0"}, {"-0", "0"}, {"-12", "-12"}, {"9223372036854775807", "9223372036854775807"},
		{"0.5", "0.5"}, {"1e3", "1000.0"}, {"-1.25E-1", "-0.125"}, {"1E+2", "100.0"},
		{"18446744073709551616", "1.8446744073709552e19"},
		{"1000000000000000019884624838656", "1e30"},
		{"\"\"", "\"\""}, {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"a\\\"\\\\/\\b\\f\\n\\r\\t\""},
		{"\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"", "\"A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
		{"\"\\u0000x\"", "\"\\u0000x\""}, {"\"\x7f\xc2\x80\"", "\"\x7f\xc2\x80\""},
		{"{\"a\":[1,{\"b\":null}],\"\":2}", "{\"a\":[1,{\"b\":null}],\"\":2}"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		wf_error err = {0};
		json_t *doc = read_text(table[i].text, &err);
		if (!doc)
			fail_msg("%s: %s", table[i].text, err.text);
		char *got = json_dumps(doc, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
		assert_string_equal(got, table[i].want);
		free(got);
		json_decref(doc);
	}
}

static void bad_documents(void **state)
{
	static const struct { const char *text, *want; } table[] = {
		{"", "t: line 1, column 1: expected a value"}, {" ", "column 2: expected a value"},
		{"nul", "expected a value"}, {"nullx", "expected a value"}, {"True", "expected a value"},
		{"NaN", "expected a value"}, {"-Infinity", "expected a value"}, {"'a'", "expected a value"},
		{"01", "expected a value"}, {"-", "expected a value"}, {"1.", "expected a value"},
		{".5", "expected a value"}, {"+1", "expected a value"}, {"1e", "expected a value"},
		{"0x10", "expected a value"}, {"1e999", "a number out of range"}, {"1 2", "expected the end of the text"},
		{"[1,]", "expected a value"}, {"[,1]", "expected a value"}, {"[1 2]", "expected , or ]"},
		{"[1", "expected , or ]"}, {"[", "expected a value"}, {"]", "expected a value"},
		{"{\"a\":1,}", "expected a value"}, {"{\"a\" 1}", "expected :"}, {"{a:1}", "expected a value"},
		{"{1:1}", "expected a key"}, {"{\"a\":}", "expected a value"}, {"{\"a\":1", "expected , or }"},
		{"{\"a\":1 \"b\":2}", "expected , or }"}, {"{\"a\":1,\"a\":2}", "key \"a\" appears twice"},
		{"{\"\\u0000\":1}", "a key holds NUL"}, {"\"", "the text ends in a string"},
		{"\"a\\", "the text ends in a string"}, {"\"\\u12", "four hex digits"}, {"\"\\u12g4\"", "four hex digits"},
		{"\"\\q\"", "unknown escape"}, {"\"\n\"", "control character"}, {"\"\\ud800\"", "surrogate"},
		{"\"\\ud800\\u0041\"", "surrogate"}, {"\"\\udc00\"", "four hex digits that are a character"},
		{"\"\xff\"", "not UTF-8"}, {"\"\xed\xa0\x80\"", "not UTF-8"}, {"\xef\xbb\xbf{}", "expected a value"},
		{"{\n \"a\":\n x}", "line 3, column 2: expected a value"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		wf_error err = {0};
		json_t *doc = read_text(table[i].text, &err);
		if (doc || !strstr(err.text, table[i].want))
			fail_msg("%s: expected \"%s\", found \"%s\"", table[i].text, table[i].want, err.text);
	}
}

static void depth(void **state)
{
	char text[300];
	wf_error err = {0};

	(void)state;
	memset(text, '[', 64);
	memset(text + 64, ']', 64);
	text[128] = 0;
	json_t *doc = read_text(text, &err);
	assert_non_null(doc);
	json_decref(doc);
	memset(text, '[', 299);
	text[299] = 0;
	assert_null(read_text(text, &err));
	assert_non_null(strstr(err.text, "nested too deeply"));
}

/* A number longer than any buffer is an error, not a cut. */
static void long_number(void **state)
{
	char text[1001];
	wf_error err = {0};

	(void)state;
	memset(text, '1', 1000);
	text[1000] = 0;
	assert_null(read_text(text, &err));
	text[300] = 0;
	err.set = false;
	json_t *doc = read_text(text, &err);
	assert_true(json_is_real(doc));
	json_decref(doc);
}

static void speed(void **state)
{
	enum { N = 200000, EACH = 24 };
	char *text = malloc(N * EACH + 8), *at = text;
	wf_error err = {0};

	(void)state;
	assert_non_null(text);
	for (int i = 0; i < N; i++)
		at += sprintf(at, "%c\"token %d\":%d", i ? ',' : '{', i, i);
	*at++ = '}';
	clock_t start = clock();
	json_t *doc = json_read(&err, "t", text, (size_t)(at - text));
	double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
	assert_int_equal(json_object_size(doc), N);
	assert_true(seconds < 2);
	json_decref(doc);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_documents),
		cmocka_unit_test(bad_documents),
		cmocka_unit_test(depth),
		cmocka_unit_test(long_number),
		cmocka_unit_test(speed),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
