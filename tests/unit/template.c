/* template.c - chat templates: language, limits, the built-in formats. */
#include "models/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct wf_message talk[] = {
	{"system", "Be brief."}, {"user", " Hi! "}, {"assistant", "Hello."}, {"user", "Who are you?"}
};

static char *render_source(const char *source, const struct wf_message *messages, int n, bool prompt, wf_error *err)
{
	wf_arena *arena = wf_arena_new();
	wf_template *t = wf_template_parse(arena, err, source, strlen(source));
	size_t len = 0;
	char *text = t ? wf_template_render(t, err, messages, n, prompt, "<s>", "</s>", &len) : NULL;

	assert_int_equal(!text, err->set);
	if (text)
		assert_int_equal(strlen(text), len);
	wf_arena_free(arena);
	return text;
}

static void expect_text(const char *source, const struct wf_message *messages, int n, bool prompt, const char *expected)
{
	wf_error err = {0};
	char *text = render_source(source, messages, n, prompt, &err);

	if (!text || strcmp(text, expected) != 0)
		fail_msg("%s\n expected %s\n found    %s", source, expected, text ? text : err.text);
	free(text);
}

static void expect_error(const char *source, const char *part)
{
	wf_error err = {0};
	char *text = render_source(source, talk, 4, true, &err);

	if (text || !strstr(err.text, part))
		fail_msg("%.200s\n expected a message with '%s'\n found %s", source, part, text ? text : err.text);
	free(text);
}

static void language(void **state)
{
	static const struct { const char *source, *text; } rows[] = {
		{"", ""}, {"plain", "plain"}, {"line\n", "line"}, {"a\r\nb\rc", "a\nb\nc"},
		{"{{ messages|length }}{{ messages[1].content|trim }}", "4Hi!"},
		{"{% for m in messages %}{{ loop.index }}{{ m['role'][0] }}{{ ',' if not loop.last }}{% endfor %}", "1s,2u,3a,4u"},
		{"{% for m in messages if m.role == 'user' %}{{ m.content }}{% else %}none{% endfor %}", " Hi! Who are you?"},
		{"{% for m in messages[::-1] %}{{ m.role }} {% if loop.first %}{% continue %}{% endif %}{% break %}{% endfor %}", "user assistant "},
		{"{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}", "10"},
		{"{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}", "1"},
		{"{% macro f(a, b='-') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) ~ f(b=2, a=3) }}", "[1-][32]"},
		{"{% set x %}  a {% endset %}{{ x|trim|upper }}", "A"},
		{"  {% if true %}\n  a\n  {%- endif %}\nb", "  ab"},
		{"{{- ' a ' -}}  b {#- c -#} d{% raw %}{{ e }}{% endraw %}", " a bd{{ e }}"},
		{"{{ [1, 2.0, 'a\\n', none, true, (1,), {'k': \"it's\"}] }}", "[1, 2.0, 'a\\n', None, True, (1,), {'k': \"it's\"}]"},
		{"{{ {'a': [1, 'é'], 'b': {}}|tojson }}{{ [1]|tojson(indent=1) }}", "{\"a\": [1, \"é\"], \"b\": {}}[\n 1\n]"},
		{"{{ 7 // -2 }} {{ -7 % 3 }} {{ 1 / 2 }} {{ 2 ** 3 }} {{ 1e16 }} {{ 0.1 + 0.2 }}", "-4 2 0.5 8 1e+16 0.30000000000000004"},
		{"{{ 1 < 2 < 3 }} {{ 'a' in 'cat' }} {{ 2 not in [1] }} {{ 3 is odd }} {{ x is defined }}", "True True True True False"},
		{"{{ 'a,b,c'.split(',')[-1] }}{{ 'xax'.strip('x') }}{{ '日本語'[1:] }}{{ 'é'|length }}", "ca本語1"},
		{"{{ messages|map(attribute='role')|unique|join('/') }}", "system/user/assistant"},
		{"{{ messages|selectattr('role', 'equalto', 'user')|list|last|attr('x') is defined }}", "False"},
		{"{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ tools }}", "<s></s>True"},
		{"{% set l = [] %}{% set _ = l.append(1) %}{{ l }}{{ _ }}", "[1]None"},
		{"{% generation %}a{% endgeneration %}{% filter upper %}b{% endfilter %}", "aB"},
		{"{% call(x) f() %}{{ x }}{% endcall %}{% macro f() %}{% endmacro %}", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (rows[i].text)
			expect_text(rows[i].source, talk, 4, true, rows[i].text);
		else
			expect_error(rows[i].source, "'f' is undefined");
	}
}

static void refused(void **state)
{
	static const struct { const char *source, *part; } rows[] = {
		{"a\n{{ x", "line 2"}, {"{{ }}", "expected an expression"}, {"{% if true %}", "expected endif"},
		{"{% nosuch %}", "unsupported tag 'nosuch'"}, {"{{ 'a }}", "quote"}, {"{# a", "#}"}, {"{% raw %}", "endraw"},
		{"{{ (1 }}", "closing bracket"}, {"{{ 1)}}", "closing bracket"}, {"{{ '\\xz' }}", "escape"}, {"{% break %}", "loop"},
		{"{{ 99999999999999999999 }}", "2^63"}, {"{{ 9223372036854775807 + 1 }}", "64 bits"}, {"{{ a b }}", "expected }}"},
		{"{{ x.y }}", "'x' is undefined"}, {"{{ messages[9].role }}", "'[9]' is undefined"}, {"{{ 'a' + 1 }}", "unsupported operands"},
		{"{{ 1 // 0 }}", "division by zero"}, {"{{ 'a' < 1 }}", "no order"}, {"{{ x() }}", "'x' is undefined"},
		{"{{ 1() }}", "not callable"}, {"{{ 'a'|nosuch }}", "no filter named 'nosuch'"}, {"{{ 1 is nosuch }}", "no test named"},
		{"{{ raise_exception('stop') }}", "stop"}, {"{% for x in 1 %}{% endfor %}", "not iterable"},
		{"{% set a, b = 1, 2, 3 %}", "as many values"}, {"{{ 'a'|trim(b=1) }}", "trim"}, {"{{ 'a'|replace('b') }}", "'new'"},
		{"{{ {[]: 1} }}", "unhashable"}, {"{{ range(200000) }}", "range"}, {"{{ messages|tojson(indent=100000) }}", "indent"},
		{"{{ strftime_now('%1000000d') }}", "strftime_now"}, {"{{ ''.__class__.__mro__ }}", "undefined"},
		{"{% include 'x' %}", "unsupported tag"}, {"{{ '%1000000d' % 1 }}", "conversion"}, {"{% macro m(a=1, b) %}{% endmacro %}", "default"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		expect_error(rows[i].source, rows[i].part);
}

/* Nothing a template says may take more than its share of time, memory, output or stack. */
static void limits(void **state)
{
	static const struct { const char *source, *part; } rows[] = {
		{"{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "steps"},
		{"{% for a in range(90000) %}{{ messages }}{% endfor %}", "more than"},
		{"{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "more than"},
		{"{{ 'a' * 9223372036854775807 }}", "steps"},
		{"{{ [1] * 9223372036854775807 }}", "steps"},
		{"{{ 'abcdefgh' * 500000 }}", "output"},
		{"{{ 'abcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefgh' * 20000 }}", "output"},
		{"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "macros called"},
		{"{% set ns = namespace(l=[]) %}{% for i in range(200) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", "nested"},
		{"{% set ns = namespace(l=[]) %}{% for i in range(200) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l|tojson }}", "nested"},
		{"{% set l = [] %}{% set _ = l.append(l) %}{{ l == [l] }}{{ l }}", "nested"},
		{"{% set l = [] %}{% set _ = [l.append(l), l.append(l)] %}{{ l }}", "nested"},
		{"{% set l = [1] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}", "steps"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		expect_error(rows[i].source, rows[i].part);
}

/* "before" n times, "middle", "after" n times */
static char *pile(const char *before, size_t n, const char *middle, const char *after)
{
	size_t head = strlen(before), tail = strlen(after);
	char *s = malloc(n * (head + tail) + strlen(middle) + 1), *p = s;

	for (size_t i = 0; i < n; i++, p += head)
		memcpy(p, before, head);
	p = stpcpy(p, middle);
	for (size_t i = 0; i < n; i++, p += tail)
		memcpy(p, after, tail);
	*p = 0;
	return s;
}

static void expect_pile(const char *before, size_t n, const char *middle, const char *after, const char *part)
{
	char *s = pile(before, n, middle, after);

	if (part)
		expect_error(s, part);
	else
		expect_text(s, talk, 4, true, "1");
	free(s);
}

static void deep_sources(void **state)
{
	(void)state;
	expect_pile("{% if true %}", 50, "1", "{% endif %}", NULL);
	expect_pile("{% if true %}", 5000, "1", "{% endif %}", "nested");
	expect_pile("{% for x in [1] %}", 5000, "1", "{% endfor %}", "nested");
	expect_error("{{ 1 if 0 else 1 if 0 else x.y }}", "'x' is undefined");
	char *chains[] = {
		pile("{{ ", 1, "1", " }}"), pile("(", 60, "1", ")"), pile("(", 60000, "1", ")"), pile("[", 60000, "1", "]"),
		pile("-", 60000, "1", ""), pile("not ", 60000, "1", ""), pile("1 + ", 60000, "1", ""), pile("1 and ", 40000, "1", ""),
		pile("", 30000, "1", "|abs"), pile("", 60000, "x", ".x"), pile("1 if 0 else ", 20000, "1", ""), pile("a.b(", 60000, "", ")")
	};
	for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
		char *source = pile("{{ ", 1, chains[i], " }}");
		if (i == 1)
			expect_text(source, talk, 4, true, "1");
		else
			expect_error(source, "");
		free(source);
		free(chains[i]);
	}
	expect_pile("a", 300000, "", "", "bytes of source");
}

static void sums_of_many_terms(void **state)
{
	char *source = pile("{{ '' ", 1, "", ""), *terms = pile("+ 'a' ", 500, "", ""), *all = malloc(8000);

	(void)state;
	snprintf(all, 8000, "{{ ('' %s)|length }}", terms);
	expect_text(all, talk, 4, true, "500");
	free(source);
	free(terms);
	free(all);
}

static void large_conversations(void **state)
{
	size_t bytes = 3 << 20, len;
	char *content = malloc(bytes + 1);
	struct wf_message message = {"user", memset(content, 'x', bytes)};
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	const char *source = wf_template_builtin("llama3");
	wf_template *t = wf_template_parse(arena, &err, source, strlen(source));

	(void)state;
	content[bytes] = 0;
	char *text = wf_template_render(t, &err, &message, 1, true, "", "", &len);
	assert_non_null(text);
	assert_true(len > bytes && len < bytes + 200);
	free(text);
	free(content);
	wf_arena_free(arena);
}

static void invalid_utf8_passes(void **state)
{
	static const struct wf_message odd[] = {{"user", "a\xff\xc3"}, {NULL, NULL}};

	(void)state;
	expect_text("{{ messages[0].content }}{{ messages[0].content|length }}{{ messages[0].content[::-1] }}", odd, 2, false,
		"a\xff\xc3""3\xc3\xff""a");
	expect_text("{{ messages[1].role }}{{ messages[0].content|upper|trim }}", odd, 2, false, "NoneA\xff\xc3");
	expect_text("{{ messages[0].content|tojson }}", odd, 2, false, "\"a\xff\xc3\"");
}

static void contexts_from_json(void **state)
{
	static const char json[] = "{\"messages\": [{\"role\": \"tool\", \"content\": {\"z\": 1, \"a\": [true, null, 1.5]}}], \"n\": 3}";
	static const char source[] = "{{ messages[0].content|tojson }} {{ n + 1 }} {{ bos_token is defined }}";
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_template *t = wf_template_parse(arena, &err, source, sizeof source - 1);
	size_t len;
	char *text = wf_template_render_json(t, &err, json, sizeof json - 1, &len);

	(void)state;
	assert_string_equal(text, "{\"z\": 1, \"a\": [true, null, 1.5]} 4 False");
	free(text);
	assert_null(wf_template_render_json(t, &err, "[1]", 3, &len));
	assert_non_null(strstr(err.text, "JSON object"));
	err.set = false;
	assert_null(wf_template_render_json(t, &err, "{", 1, &len));
	assert_true(err.set);
	wf_arena_free(arena);
}

/* The formats as their families document them, for system, user, assistant, user and the prompt. */
static void formats(void **state)
{
	static const struct { const char *name, *text; } rows[] = {
		{"llama2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi! [/INST] Hello. </s><s>[INST] Who are you? [/INST]"},
		{"llama3", "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
			"<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
			"<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
		{"chatml", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi! <|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
			"<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"},
		{"smollm", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi! <|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
			"<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"},
		{"zephyr", "<|system|>\nBe brief.</s>\n<|user|>\n Hi! </s>\n<|assistant|>\nHello.</s>\n<|user|>\nWho are you?</s>\n<|assistant|>\n"},
		{"mistral", "<s>[INST] Be brief.\n\n Hi!  [/INST] Hello.</s>[INST] Who are you? [/INST]"},
		{"gemma", "<s><start_of_turn>user\nBe brief.\n\nHi!<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
			"<start_of_turn>user\nWho are you?<end_of_turn>\n<start_of_turn>model\n"},
		{"phi3", "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi! <|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nWho are you?<|end|>\n"
			"<|assistant|>\n"},
		{"phi4", "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|> Hi! <|im_end|>"
			"<|im_start|>assistant<|im_sep|>Hello.<|im_end|><|im_start|>user<|im_sep|>Who are you?<|im_end|><|im_start|>assistant<|im_sep|>"},
		{"chatglm2", "[gMASK]sopBe brief.\n\n[Round 1]\n\n问： Hi! \n\n答：Hello.\n\n[Round 2]\n\n问：Who are you?\n\n答："},
		{"chatglm3", "[gMASK]sop<|system|>\n Be brief.<|user|>\n  Hi! <|assistant|>\n Hello.<|user|>\n Who are you?<|assistant|>"},
		{"glm4", "[gMASK]<sop><|system|>\nBe brief.<|user|>\n Hi! <|assistant|>\nHello.<|user|>\nWho are you?<|assistant|>"},
		{"falcon", "System: Be brief.\nUser:  Hi! \nFalcon: Hello.\nUser: Who are you?\nFalcon:"},
		{"falcon3", "<|system|>\nBe brief.\n<|user|>\n Hi! \n<|assistant|>\nHello.</s>\n<|user|>\nWho are you?\n<|assistant|>\n"},
		{"olmo2", "<s><|system|>\nBe brief.\n<|user|>\n Hi! \n<|assistant|>\nHello.</s>\n<|user|>\nWho are you?\n<|assistant|>\n"},
		{"vicuna", "<s>Be brief. USER:  Hi!  ASSISTANT: Hello.</s>USER: Who are you? ASSISTANT:"},
		{"alpaca", "<s>Be brief.\n\n### Instruction:\n Hi! \n\n### Response:\nHello.</s>\n\n### Instruction:\nWho are you?\n\n### Response:\n"},
		{"deepseek", "<s>Be brief.<｜User｜> Hi! <｜Assistant｜>Hello.</s><｜User｜>Who are you?<｜Assistant｜>"},
		{"harmony", "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|><|start|>user<|message|> Hi! <|end|>"
			"<|start|>assistant<|channel|>final<|message|>Hello.<|end|><|start|>user<|message|>Who are you?<|end|><|start|>assistant"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_non_null(wf_template_builtin(rows[i].name));
		expect_text(wf_template_builtin(rows[i].name), talk, 4, true, rows[i].text);
	}
	assert_null(wf_template_builtin("nosuch"));
	assert_null(wf_template_builtin("llama-33"));
	assert_ptr_equal(wf_template_builtin("llama-3"), wf_template_builtin("llama3"));
	assert_ptr_equal(wf_template_builtin("llama"), wf_template_builtin("llama2"));
	expect_text(wf_template_builtin("smollm"), talk + 1, 1, true, "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
		"trained by Hugging Face<|im_end|>\n<|im_start|>user\n Hi! <|im_end|>\n<|im_start|>assistant\n");
	expect_text(wf_template_builtin("llama2"), talk + 1, 1, true, "<s>[INST] Hi! [/INST]");
	expect_text(wf_template_builtin("llama3"), talk + 1, 1, false, "<s><|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>");
}

static const char *guess(const char *const *tokens)
{
	char json[2000] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, \"added_tokens\": [";
	char *p = json + strlen(json);
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};

	for (int i = 0; tokens[i]; i++)
		p += sprintf(p, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true}", i ? ", " : "", i + 1, tokens[i]);
	strcpy(p, "]}");
	wf_tokenizer *tok = tokenizer_from_json(arena, &err, json, strlen(json), NULL, 0);
	if (!tok)
		fail_msg("%s", err.text);
	const char *name = wf_template_guess(tok);
	tokenizer_close(tok);
	wf_arena_free(arena);
	return name;
}

static void guesses(void **state)
{
	(void)state;
	assert_string_equal(guess((const char *[]){"<|im_start|>", "<|im_end|>", NULL}), "chatml");
	assert_string_equal(guess((const char *[]){"<|im_start|>", "<|im_end|>", "<|im_sep|>", NULL}), "phi4");
	assert_string_equal(guess((const char *[]){"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", NULL}), "llama3");
	assert_string_equal(guess((const char *[]){"[gMASK]", "sop", NULL}), "chatglm2");
	assert_string_equal(guess((const char *[]){"[gMASK]", "sop", "<|user|>", NULL}), "chatglm3");
	assert_string_equal(guess((const char *[]){"[gMASK]", "<sop>", "<|user|>", NULL}), "glm4");
	assert_null(guess((const char *[]){"<|im_start|>", NULL}));
	assert_null(guess((const char *[]){"</s>", NULL}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(language), cmocka_unit_test(refused), cmocka_unit_test(limits), cmocka_unit_test(deep_sources),
		cmocka_unit_test(sums_of_many_terms), cmocka_unit_test(large_conversations), cmocka_unit_test(invalid_utf8_passes),
		cmocka_unit_test(contexts_from_json), cmocka_unit_test(formats), cmocka_unit_test(guesses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
