/* tokenizer.c - ids as the models' own libraries give them, from every layout; decoding. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>
#include "tokens.h"

/* The text of ids, through the streaming decoder; every push ends at a character's end. */
static char *decode(const struct opened *o, const int32_t *ids, size_t n, bool special, size_t *len)
{
	struct wf_decoder d;
	char *text = malloc(wf_decoder_cap(o->tok) * (n + 1) + 1);

	assert_non_null(text);
	wf_decoder_init(&d, o->tok, special);
	*len = 0;
	for (size_t i = 0; i < n; i++) {
		*len += wf_decoder_push(&d, ids[i], text + *len);
		assert_true(d.nheld < 4);
	}
	*len += wf_decoder_flush(&d, text + *len);
	text[*len] = 0;
	return text;
}

static void check_round_trip(struct opened *o, const char *text, size_t n)
{
	int32_t *ids;
	size_t count = encode(o, text, n, 0, &ids), len;
	char *back = decode(o, ids, count, false, &len);

	if (len != n || memcmp(back, text, n) != 0)
		fail_msg("\"%.*s\" comes back as \"%s\"", (int)n, text, back);
	free(back);
	free(ids);
}

/* ---- files of other libraries ---- */

static int case_ids(const json_t *list, int32_t *ids)
{
	const json_t *id;
	size_t i;

	json_array_foreach(list, i, id)
		ids[i] = (int32_t)json_integer_value(id);
	return (int)i;
}

static void run_case(struct opened *o, const json_t *c)
{
	const json_t *text = json_object_get(c, "text");
	int flags = json_is_true(json_object_get(c, "special")) ? WF_TOK_SPECIAL : 0;
	int32_t want[4096];
	int n = case_ids(json_object_get(c, "ids"), want);

	if (json_is_true(json_object_get(c, "bos")))
		flags |= WF_TOK_BOS;
	check_ids(o, json_string_value(text), json_string_length(text), flags, want, (size_t)n);
}

static void libraries(void **unused)
{
	json_t *all = json_load_file(DATA "cases.json", JSON_ALLOW_NUL, NULL);
	const json_t *c;
	struct opened o = {0};
	char path[256], last[256] = "";
	size_t i;
	(void)unused;

	assert_true(json_array_size(all) > 150);
	json_array_foreach(all, i, c) {
		snprintf(path, sizeof path, DATA "%s", json_string_value(json_object_get(c, "file")));
		if (strcmp(path, last) != 0) {
			if (*last)
				close_file(&o);
			o = open_file(strcpy(last, path));
		}
		run_case(&o, c);
	}
	close_file(&o);
	json_decref(all);
}

/* ---- files of the shared folder ---- */

static bool shared_path(char *path, size_t n, const char *name)
{
	const char *shared = getenv("WEFT_SHARED");

	snprintf(path, n, "%s/%s", shared ? shared : "../shared", name);
	if (access(path, R_OK) == 0)
		return true;
	print_message("%s is not there\n", path);
	return false;
}

static void vocabulary(const char *name)
{
	static const char mark[] = "\n__ggml_vocab_test__\n";
	char path[512], line[16384];
	int32_t want[8192];
	size_t bytes, count = 0;

	snprintf(line, sizeof line, "vocab/ggml-vocab-%s.gguf", name);
	if (!shared_path(path, sizeof path, line))
		skip();
	struct opened o = open_file(path);
	strcat(path, ".inp");
	char *text = file_read(o.arena, &o.err, path, 1 << 20, &bytes), *end;
	strcpy(strrchr(path, '.'), ".out");
	FILE *out = fopen(path, "r");
	assert_non_null(text);
	assert_non_null(out);
	for (; (end = strstr(text, mark)) && fgets(line, sizeof line, out); text = end + strlen(mark), count++) {
		line[strcspn(line, "\n")] = 0;
		check_ids(&o, text, (size_t)(end - text), 0, want, read_ids(line, want));
		check_round_trip(&o, text, (size_t)(end - text));
	}
	assert_int_equal(count, 46);
	fclose(out);
	close_file(&o);
}

static void vocab_falcon(void **unused) { (void)unused; vocabulary("falcon"); }
static void vocab_gpt2(void **unused) { (void)unused; vocabulary("gpt-2"); }
static void vocab_llama(void **unused) { (void)unused; vocabulary("llama-spm"); }
static void vocab_starcoder(void **unused) { (void)unused; vocabulary("starcoder"); }

static void stories(void **unused)
{
	char path[512];
	int32_t *ids;
	size_t n;
	(void)unused;

	if (!shared_path(path, sizeof path, "models/stories260K.gguf"))
		skip();
	struct opened o = open_file(path);
	assert_int_equal(wf_vocab_size(o.tok), 512);
	assert_int_equal(wf_token_bos(o.tok), 1);
	assert_true(wf_token_is_eog(o.tok, 2));
	assert_false(wf_token_is_eog(o.tok, 1));
	n = encode(&o, "", 0, WF_TOK_BOS, &ids);
	assert_int_equal(n, 1);
	assert_int_equal(ids[0], 1);
	free(ids);
	check_round_trip(&o, "Once upon a time, Lily\xE2\x80\x99s dog", 30);
	close_file(&o);
}

/* ---- round trips ---- */

static uint32_t rng = 1;

static uint32_t next_random(uint32_t below)
{
	rng = rng * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)rng * below >> 32);
}

static size_t random_text(char *s, size_t n)
{
	static const uint32_t from[] = {0x20, 0x20, 'a', '0', 1, 0xA0, 0x300, 0x400, 0x4E00, 0xAC00, 0x1F300, 0x2000, 0xE000};
	static const uint32_t count[] = {1, 95, 26, 10, 31, 300, 112, 256, 20000, 11000, 700, 112, 6400};
	size_t at = 0;

	while (at + 4 < n) {
		uint32_t i = next_random(sizeof from / sizeof *from), c = from[i] + next_random(count[i]);
		if (c < 0x80) {
			s[at++] = (char)c;
			continue;
		}
		int tail = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
		s[at++] = (char)((tail == 1 ? 0xC0 : tail == 2 ? 0xE0 : 0xF0) | c >> 6 * tail);
		while (tail--)
			s[at++] = (char)(0x80 | (c >> 6 * tail & 0x3F));
	}
	return at;
}

static void round_trips(void **unused)
{
	static const char *const files[] = {DATA "falcon.json", DATA "llama.json", DATA "gemma.json"};
	char text[200];
	(void)unused;

	for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
		struct opened o = open_file(files[f]);
		for (int i = 0; i < 2000; i++) {
			size_t n = random_text(text, 5 + next_random(sizeof text - 5));
			if (!memmem(text, n, "\xE2\x96\x81", 3))     /* a space to these vocabularies */
				check_round_trip(&o, text, n);
		}
		close_file(&o);
	}
}

/* Any bytes at all give ids, and the ids the text with its broken parts replaced. */
static void broken_text(void **unused)
{
	static const char *const files[] = {DATA "falcon.json", DATA "byte_level.json", DATA "llama.json", DATA "unigram.json",
		DATA "bpe.model", DATA "unigram.model"};
	char text[64];
	(void)unused;

	for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
		struct opened o = open_file(files[f]);
		for (int i = 0; i < 1000; i++) {
			size_t n = next_random(sizeof text), len, count;
			int32_t *ids;
			for (size_t j = 0; j < n; j++)
				text[j] = (char)next_random(256);
			count = encode(&o, text, n, WF_TOK_BOS | WF_TOK_SPECIAL, &ids);
			for (size_t j = 0; j < count; j++)
				assert_non_null(wf_token_piece(o.tok, ids[j], NULL));
			free(decode(&o, ids, count, true, &len));
			free(ids);
		}
		close_file(&o);
	}
}

/* ---- decoding ---- */

static void push_text(struct opened *o, struct wf_decoder *d, const char *piece, const char *want)
{
	char buf[1024];
	int32_t id = wf_token_find(o->tok, piece);
	size_t n;

	assert_true(id >= 0);
	n = wf_decoder_push(d, id, buf);
	assert_true(n <= wf_decoder_cap(o->tok));
	buf[n] = 0;
	assert_string_equal(buf, want);
}

static void decoder(void **unused)
{
	struct opened o = open_file(DATA "llama.json");
	struct wf_decoder d;
	char buf[1024];
	(void)unused;

	wf_decoder_init(&d, o.tok, false);
	push_text(&o, &d, "<s>", "");
	push_text(&o, &d, "\xE2\x96\x81", "");               /* the space that encoding put first */
	push_text(&o, &d, "\xE2\x96\x81", " ");
	push_text(&o, &d, "<0xF0>", "");
	push_text(&o, &d, "<0x9F>", "");
	push_text(&o, &d, "<0xA6>", "");
	push_text(&o, &d, "<0x99>", "\xF0\x9F\xA6\x99");
	push_text(&o, &d, "<0xE2>", "");
	push_text(&o, &d, "<0x82>", "");
	push_text(&o, &d, "a", "\xEF\xBF\xBD" "a");          /* two bytes of three: one replacement */
	push_text(&o, &d, "<0xED>", "");
	push_text(&o, &d, "<0xA0>", "\xEF\xBF\xBD\xEF\xBF\xBD");     /* a surrogate's first two bytes */
	push_text(&o, &d, "<0xC3>", "");
	assert_int_equal(wf_decoder_flush(&d, buf), 3);
	assert_int_equal(wf_decoder_flush(&d, buf), 0);
	assert_int_equal(wf_decoder_push(&d, -1, buf), 0);
	assert_int_equal(wf_decoder_push(&d, INT32_MAX, buf), 0);
	wf_decoder_init(&d, o.tok, true);
	push_text(&o, &d, "</s>", "</s>");
	push_text(&o, &d, "\xE2\x96\x81", " ");
	close_file(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(libraries), cmocka_unit_test(vocab_falcon), cmocka_unit_test(vocab_gpt2), cmocka_unit_test(vocab_llama),
		cmocka_unit_test(vocab_starcoder), cmocka_unit_test(stories), cmocka_unit_test(round_trips), cmocka_unit_test(broken_text),
		cmocka_unit_test(decoder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
