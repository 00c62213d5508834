/* generate.c - one sequence, token by token: feed, sample, stream. */
#include "tools/weft.h"

#include <string.h>
#include <time.h>

static uint64_t seed_of(const struct options *o)
{
	return o->seed >= 0 ? (uint64_t)o->seed : (uint64_t)(seconds_now() * 1e9) ^ (uint64_t)time(NULL) << 32;
}

/* Penalties need the last token before the next can be chosen. */
static bool penalises(const struct options *o)
{
	return o->repeat_last_n && (o->repeat_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0);
}

static int make_sampler(struct generator *g)
{
	const struct options *o = g->s->o;
	int64_t last = o->repeat_last_n < 0 ? session_ctx(g->s) : o->repeat_last_n;

	wf_sampler_free(g->sampler);
	g->sampler = wf_sampler_new(&g->s->err, &(struct wf_sampling){
		.temp = o->temp, .top_p = o->top_p, .min_p = o->min_p, .top_k = (int)o->top_k,
		.repeat_penalty = o->repeat_penalty, .presence_penalty = o->presence_penalty,
		.frequency_penalty = o->frequency_penalty, .repeat_last_n = (int)last,
		.seed = seed_of(o)}, session_vocab(g->s));
	return g->sampler ? 0 : -1;
}

int generator_start(struct generator *g, struct session *s)
{
	*g = (struct generator){.s = s, .seq = wf_seq_new(wf_runner_slab(s->runner))};
	if (!g->seq || wf_seq_reserve(wf_runner_slab(s->runner), g->seq, session_ctx(s)))
		return wf_fail(&s->err, "out of memory");
	g->ahead = wf_runner_can_pick(s->runner) && !penalises(s->o);
	return make_sampler(g);
}

void generator_end(struct generator *g)
{
	if (g->seq)
		wf_seq_free(wf_runner_slab(g->s->runner), g->seq);
	wf_sampler_free(g->sampler);
	tokens_free(&g->text);
	*g = (struct generator){0};
}

/* ---- feeding ---- */

static int step(struct generator *g, const int32_t *id, int n, bool wanted)
{
	int nrow;
	const float *logits;

	if ((int64_t)g->text.n + n > session_ctx(g->s))
		return 1;
	struct wf_pick pick;
	bool choose = wanted && g->ahead && wf_sampler_describe(g->sampler, &pick);
	int result = wf_runner_step(g->s->runner, &(struct wf_piece){.seq = g->seq, .token = id, .n = n,
		.no_rows = !wanted, .pick = choose ? &pick : NULL}, 1, &logits, &nrow);
	if (result)
		return result;
	g->logits = wanted ? logits : NULL;
	g->unread += choose;
	return *id < 0 ? 0 : tokens_add(&g->text, &g->s->err, id, (size_t)n);
}

/* How many of the ids are computed already; at least one is left, whose logits are wanted. */
static size_t keep_prefix(struct generator *g, const struct tokens *ids)
{
	size_t n = 0;

	while (n < g->text.n && n + 1 < ids->n && g->text.id[n] == ids->id[n])
		n++;
	if (n < g->text.n)
		n = (size_t)wf_seq_truncate(wf_runner_slab(g->s->runner), g->seq, (int64_t)n);
	g->text.n = n;
	return n;
}

int generator_feed(struct generator *g, const struct tokens *ids)
{
	double start = seconds_now();
	size_t most = (size_t)wf_runner_max_tokens(g->s->runner), from = keep_prefix(g, ids);
	int result = 0;

	for (size_t i = from; i < ids->n && !result && !interrupted; ) {
		size_t n = ids->n - i < most ? ids->n - i : most;
		result = step(g, ids->id + i, (int)n, i + n == ids->n);
		i += n;
	}
	g->prompt_s += seconds_now() - start;
	g->prompt_n += (int64_t)(g->text.n - from);
	if (!result)
		for (size_t i = from; i < ids->n; i++)
			wf_sampler_accept(g->sampler, ids->id[i]);
	return result;
}

/* ---- answering ---- */

static int keep_answer(struct generator *g, struct answer *a, const char *text, size_t n)
{
	if (!a)
		return 0;
	if (a->len + n + 1 > a->max) {
		size_t max = (a->len + n + 1) * 2;
		char *more = realloc(a->text, max);
		if (!more)
			return wf_fail(&g->s->err, "out of memory");
		a->text = more;
		a->max = max;
	}
	memcpy(a->text + a->len, text, n);
	a->len += n;
	a->text[a->len] = 0;
	return 0;
}

static int put(struct generator *g, FILE *out, struct answer *a, const char *text, size_t n)
{
	fwrite(text, 1, n, out);
	if (n && fflush(out))
		return wf_fail(&g->s->err, "cannot write the answer");
	return keep_answer(g, a, text, n);
}

static enum generate_end answer(struct generator *g, int64_t n, FILE *out, struct answer *a,
		struct wf_decoder *decoder, char *text)
{
	const wf_tokenizer *tok = g->s->model->tokenizer;

	for (int64_t i = 0; n < 0 || i < n; i++) {
		if (interrupted)
			return END_INTERRUPT;
		int32_t id = wf_sampler_pick(g->sampler, g->logits);
		wf_sampler_accept(g->sampler, id);
		if (!g->s->o->ignore_eos && wf_token_is_eog(tok, id))
			return END_STOP;
		if (put(g, out, a, text, wf_decoder_push(decoder, id, text)))
			return END_FAILED;
		if (i + 1 == n)
			break;
		int result = step(g, &id, 1, true);
		if (result)
			return result < 0 ? END_FAILED : END_CONTEXT;
		g->decode_n++;
	}
	return END_LENGTH;
}

/* ---- answering, a step ahead of what is read ---- */

static int read_choice(struct generator *g, int32_t *id)
{
	const int32_t *picked = wf_runner_picked(g->s->runner);

	g->unread--;
	if (!picked)
		return -1;
	*id = *picked;
	wf_sampler_accept(g->sampler, *id);
	return 0;
}

/* Steps queued past the end: their choices mean nothing, and the token that ended the answer goes. */
static void take_back(struct generator *g, bool fed)
{
	while (g->unread > 0 && wf_runner_picked(g->s->runner))
		g->unread--;
	if (fed)
		g->text.n = (size_t)wf_seq_truncate(wf_runner_slab(g->s->runner), g->seq, (int64_t)g->text.n - 1);
}

static enum generate_end answer_ahead(struct generator *g, int64_t n, FILE *out, struct answer *a,
		struct wf_decoder *decoder, char *text)
{
	const wf_tokenizer *tok = g->s->model->tokenizer;
	const int32_t last = ~0;

	for (int64_t i = 0; n < 0 || i < n; i++) {
		int32_t id;
		bool more = i + 1 != n && !interrupted;
		int result = more ? step(g, &last, 1, true) : 0;
		bool fed = more && !result;
		if (result < 0 || read_choice(g, &id) || (fed && tokens_add(&g->text, &g->s->err, &id, 1)))
			return END_FAILED;
		if (!g->s->o->ignore_eos && wf_token_is_eog(tok, id)) {
			take_back(g, fed);
			return END_STOP;
		}
		if (put(g, out, a, text, wf_decoder_push(decoder, id, text)))
			return END_FAILED;
		g->decode_n += fed;
		if (!fed) {
			take_back(g, false);
			return interrupted ? END_INTERRUPT : result ? END_CONTEXT : END_LENGTH;
		}
	}
	return END_LENGTH;
}

enum generate_end generator_run(struct generator *g, int64_t n, FILE *out, struct answer *a)
{
	struct wf_decoder decoder;
	char *text = malloc(wf_decoder_cap(g->s->model->tokenizer));
	double start = seconds_now();

	if (!text) {
		wf_fail(&g->s->err, "out of memory");
		return END_FAILED;
	}
	wf_decoder_init(&decoder, g->s->model->tokenizer, g->s->o->special);
	decoder.started = g->continues;
	enum generate_end end = (g->ahead ? answer_ahead : answer)(g, n, out, a, &decoder, text);
	if (end != END_FAILED && put(g, out, a, text, wf_decoder_flush(&decoder, text)))
		end = END_FAILED;
	free(text);
	g->decode_s += seconds_now() - start;
	return end;
}

void generator_report(const struct generator *g)
{
	const struct options *o = g->s->o;
	char load[32], prompt[32], decode[32], opened[160];

	say(o, "%sload %s%s · prompt %lld tokens, %s, %.1f tok/s · generated %lld tokens, %s, %.1f tok/s%s\n",
		style(stderr, "2"), seconds_text(g->s->open_s + g->s->load_s, load),
		opened_text(wf_runner_exec(g->s->runner)->opened, opened),
		(long long)g->prompt_n, seconds_text(g->prompt_s, prompt), g->prompt_s > 0 ? (double)g->prompt_n / g->prompt_s : 0,
		(long long)g->decode_n, seconds_text(g->decode_s, decode), g->decode_s > 0 ? (double)g->decode_n / g->decode_s : 0,
		style(stderr, "0"));
}
