/* pretok.c - patterns as their own libraries read them, and every name of tokenizer.ggml.pre. */
#include "models/text/text.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* ---- single patterns ---- */

/* The matches in text, each in brackets, rest as it is. */
static void marks(const char *pattern, const char *text, const char *want)
{
	wf_error err = {0};
	struct matcher m = {0};
	char got[512] = "";
	size_t n = strlen(text), at = 0, start, end;
	struct regex *re = regex_new(&err, pattern, strlen(pattern));

	if (!re)
		fail_msg("%s", err.text);
	while (at < n && regex_match(re, &err, &m, text, n, at, &start, &end) == 1 && end > start) {
		sprintf(got + strlen(got), "%.*s[%.*s]", (int)(start - at), text + at, (int)(end - start), text + start);
		at = end;
	}
	strcat(got, text + at);
	if (strcmp(got, want) != 0)
		fail_msg("%s: want %s, got %s", pattern, want, got);
	assert_false(err.set);
	matcher_free(&m);
	regex_free(re);
}

static void patterns(void **unused)
{
	(void)unused;
	marks("\\s", "a\xE1\xA0\x8E" "b c\xC2\x85", "a\xE1\xA0\x8E" "b[ ]c[\xC2\x85]");     /* U+180E is no space */
	marks("\\S+", "a\xE1\xA0\x8E b", "[a\xE1\xA0\x8E] [b]");
	marks("[^\\S\\n]+", "a \t\nb", "a[ \t]\nb");
	marks("[\\S]", " x", " [x]");
	marks("\\w+", "a1_\xCC\x81-\xE2\x93\x90.", "[a1_\xCC\x81]-[\xE2\x93\x90].");        /* marks, circled letters */
	marks("\\d", "1\xC2\xBD\xD9\xA1", "[1]\xC2\xBD[\xD9\xA1]");
	marks("\\h+", "fg 0Z", "[f]g [0]Z");                     /* a hexadecimal digit, not a blank */
	marks("\\v", "\x0b\n", "[\x0b]\n");                      /* one character, not a class */
	marks("a{1,2}+", "aaaaa", "[aaaaa]");                    /* repeated, not possessive */
	marks("a++a|b", "aab", "aa[b]");                         /* possessive */
	marks("a{,2}b", "aaab", "a[aab]");
	marks("[a[bc]\\]]+", "xab]c", "x[ab]c]");                /* a nested class */
	marks("[a-z&&[^m-z]]+", "amz", "[a]mz");
	marks("[a-f&&[d-z]]", "cdg", "c[d]g");
	marks("(a|b)+c", "abac", "[abac]");
	marks("(?i:'S|'re)", "it's we'RE", "it['s] we['RE]");
	marks("\\u4e00|\\x{4e8c}|\\x41", "A\xE4\xB8\x80\xE4\xBA\x8C", "[A][\xE4\xB8\x80][\xE4\xBA\x8C]");
	marks("\\p{Han}+", "\xE4\xB8\xAD\xE3\x80\x82", "[\xE4\xB8\xAD]\xE3\x80\x82");       /* the script, not its extensions */
	marks("\\p{^L}", "a1", "a[1]");
	marks("\\P{Letter}", "a1", "a[1]");
	marks("[[:digit:]x]", "a1x", "a[1][x]");
	marks("a$", "a\na", "[a]\n[a]");
	marks("{a}", "{a}", "[{a}]");
	marks("[]a]", "]a", "[]][a]");
	marks("x\xC3\xA9+", "x\xC3\xA9\xC3\xA9", "[x\xC3\xA9\xC3\xA9]");
}

static void refused(void **unused)
{
	static const char *const bad[][2] = {
		{"(a)\\1", "this escape"}, {"(?R)", "this group"}, {"(?<n>a)", "this group"}, {"\\K", "this escape"},
		{"a)", "closes nothing"}, {"(a", "without an end"}, {"[a", "without an end"}, {"[^a&&[b]]", "intersection"},
		{"[a[^b]]", "negated class in a class"}, {"\\p{Greek", "without braces"}, {"\\p{No Such}", "property"},
		{"\\p{Nosuchscript}", "pattern"}, {"a**b{", "pattern"}, {"\\x{110000}", "code point"}, {"\\ud800", "code point"},
		{"\\", "this escape"}, {"\xff", "not text"}, {"[z-a]", "pattern"}, {"(?C1)", "this group"}, {"(*ACCEPT)", "pattern"},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		wf_error err = {0};
		struct regex *re = regex_new(&err, bad[i][0], strlen(bad[i][0]));
		if (re)
			fail_msg("%s was accepted", bad[i][0]);
		if (!strstr(err.text, bad[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", bad[i][0], err.text, bad[i][1]);
	}
}

/* A pattern that tries everything ends with a message, not with the universe. */
static void hopeless(void **unused)
{
	static const char pattern[] = "(?:a+)+(?:a+)+[bd]";
	char text[3000];
	wf_error err = {0};
	struct matcher m = {0};
	size_t start, end;
	struct regex *re = regex_new(&err, pattern, strlen(pattern));
	(void)unused;

	assert_non_null(re);
	memset(text, 'a', sizeof text);
	assert_int_equal(regex_match(re, &err, &m, text, sizeof text, 0, &start, &end), -1);
	assert_true(err.set);
	matcher_free(&m);
	regex_free(re);
}

/* ---- names ---- */

static struct work cut(const wf_tokenizer *tok, wf_error *err, const char *name, const char *text)
{
	struct steps steps = {0};
	struct work w = {.tok = tok, .err = err, .first = true, .last = true};
	const struct pretok *row = pretok_named(err, (struct gguf_str){name, strlen(name)});

	if (!row || pretok_steps(err, &steps, row) < 0)
		fail_msg("%s: %s", name, err->text);
	assert_int_equal(bytes_add(err, &w.text, text, strlen(text)), 0);
	assert_int_equal(work_span(&w, 0, w.text.n), 0);
	work_cut(&w);
	assert_int_equal(steps_run(&w, &steps), 0);
	steps_free(&steps);
	return w;
}

static void names(void **unused)
{
	json_t *file = json_load_file("tests/data/tokenizer/pretok.json", 0, NULL), *pieces;
	wf_error err = {0};
	wf_tokenizer tok = {0};
	const char *name;
	(void)unused;

	assert_true(json_object_size(json_object_get(file, "pieces")) > 25);
	json_object_foreach(json_object_get(file, "pieces"), name, pieces) {
		struct work w = cut(&tok, &err, name, json_string_value(json_object_get(file, "text")));
		for (size_t i = 0; i < w.nspan && i < json_array_size(pieces); i++)
			if (w.span[i].end - w.span[i].start != json_integer_value(json_array_get(pieces, i)))
				fail_msg("%s: piece %zu is \"%.*s\"", name, i, (int)(w.span[i].end - w.span[i].start),
					w.text.s + w.span[i].start);
		assert_int_equal(w.nspan, json_array_size(pieces));
		work_free(&w);
	}
	json_decref(file);
}

static void other_names(void **unused)
{
	static const char *const all[] = {
		"llama3", "llama-v3", "falcon3", "pixtral", "deepseek-r1-qwen", "deepseek-llm", "command-r", "refact", "mpt",
		"olmo", "stablelm2", "poro-chat", "gpt3-finnish", "viking", "jais", "exaone", "exaone4", "codeshell", "minerva-7b",
		"llama4", "trillion", "hunyuan", "hunyuan-dense", "glm4", "chatglm-bpe", "afmoe", "youtu", "spark2_5", "chameleon",
		"granite-docling", "sarvam-moe", "lfm2", "solar-open", "minimax-m2", "megrez", "phi-2",
	};
	wf_error err = {0};
	wf_tokenizer tok = {0};
	(void)unused;

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct work w = cut(&tok, &err, all[i], "Ab's 12345\n \xE4\xBD\xA0");
		assert_true(w.nspan > 1);
		work_free(&w);
	}
	assert_null(pretok_named(&err, (struct gguf_str){"gpt", 3}));
	assert_non_null(strstr(err.text, "\"gpt\""));
}

/* Every byte has a character of its own, and the way back finds it. */
static void byte_characters(void **unused)
{
	bool seen[512] = {false};
	(void)unused;

	for (int b = 0; b < 256; b++) {
		uint32_t code = byte_code((uint8_t)b);
		assert_true(code < 512 && !seen[code]);
		seen[code] = true;
		assert_int_equal(byte_of(code), b);
	}
	assert_int_equal(byte_code(' '), 0x120);
	assert_int_equal(byte_code('\n'), 0x10A);
	assert_int_equal(byte_of(' '), -1);
	assert_int_equal(byte_of(0x144), -1);
	assert_int_equal(byte_of(0x2581), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns), cmocka_unit_test(refused), cmocka_unit_test(hopeless),
		cmocka_unit_test(names), cmocka_unit_test(other_names), cmocka_unit_test(byte_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
