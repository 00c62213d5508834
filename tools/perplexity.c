/* perplexity.c - exp of the mean negative log-likelihood over windows of a text.  The first half of a
 * window is context and does not count, as in llama.cpp's figure of that name. */
#include "tools/weft.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

struct sums { double nll, square; int64_t n; };

static double log_likelihood(const float *logits, int64_t vocab, int32_t id)
{
	double most = logits[0], sum = 0;

	for (int64_t i = 1; i < vocab; i++)
		most = logits[i] > most ? logits[i] : most;
	for (int64_t i = 0; i < vocab; i++)
		sum += exp(logits[i] - most);
	return logits[id] - most - log(sum);
}

static void count(struct sums *sums, const float *logits, int64_t vocab, int32_t id)
{
	double nll = -log_likelihood(logits, vocab, id);

	sums->nll += nll;
	sums->square += nll * nll;
	sums->n++;
}

static int window(struct session *s, int32_t *id, int64_t ctx, struct sums *sums)
{
	wf_slab *slab = wf_runner_slab(s->runner);
	wf_seq *seq = wf_seq_new(slab);
	int64_t most = wf_runner_max_tokens(s->runner), vocab = session_vocab(s);
	const float *logits;
	int result = seq ? 0 : wf_fail(&s->err, "out of memory"), nrow;

	for (int64_t at = 0; at < ctx && !result && !interrupted; at += most) {
		int n = (int)(ctx - at < most ? ctx - at : most);
		bool wanted = at + n > ctx / 2;
		result = wf_runner_step(s->runner, &(struct wf_piece){.seq = seq, .token = id + at, .n = n,
			.all_rows = wanted, .no_rows = !wanted}, 1, &logits, &nrow);
		if (result > 0)
			result = wf_fail(&s->err, "the KV pages are too few");
		for (int64_t k = 0; !result && wanted && k < n; k++)
			if (at + k >= ctx / 2 && at + k + 1 < ctx)
				count(sums, logits + k * vocab, vocab, id[at + k + 1]);
	}
	if (seq)
		wf_seq_free(slab, seq);
	return result;
}

static double deviation(const struct sums *sums)
{
	double mean = sums->nll / (double)sums->n, variance = sums->square / (double)sums->n - mean * mean;

	return sums->n > 1 && variance > 0 ? sqrt(variance / (double)(sums->n - 1)) * exp(mean) : 0;
}

static void report(struct session *s, const struct sums *sums, int64_t nwindow, int64_t ctx, double seconds)
{
	double ppl = exp(sums->nll / (double)sums->n);

	if (s->o->json) {
		json_t *doc = json_pack("{s:s, s:f, s:f, s:I, s:I, s:I, s:f}", "model", s->model->path, "perplexity", ppl,
			"deviation", deviation(sums), "tokens", (json_int_t)sums->n, "windows", (json_int_t)nwindow,
			"ctx", (json_int_t)ctx, "seconds", seconds);
		json_dumpf(doc, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(doc);
	} else {
		printf("perplexity %.4f +/- %.4f over %lld tokens in %lld windows of %lld\n", ppl, deviation(sums),
			(long long)sums->n, (long long)nwindow, (long long)ctx);
	}
}

static int measure(struct session *s, struct tokens *ids, int64_t nwindow, int64_t ctx)
{
	struct sums sums = {0};
	struct tokens prefix = {0};
	double start = seconds_now();
	int result = prompt_prefix(s, &prefix);

	for (int64_t i = 0; i < nwindow && !result && !interrupted; i++) {
		if (prefix.n)
			ids->id[i * ctx] = prefix.id[0];
		result = window(s, ids->id + i * ctx, ctx, &sums);
		if (!result && !is_plain(stderr))
			say(s->o, "\r%lld/%lld  %.4f ", (long long)i + 1, (long long)nwindow, exp(sums.nll / (double)sums.n));
	}
	tokens_free(&prefix);
	if (!is_plain(stderr))
		say(s->o, "\n");
	if (result || interrupted)
		return result ? -1 : WEFT_INTERRUPTED;
	report(s, &sums, nwindow, ctx, seconds_now() - start);
	return WEFT_OK;
}

int perplexity_main(const struct options *o)
{
	struct session s;
	struct tokens ids = {0};
	size_t len;
	int code = -1;

	session_start(&s, o);
	char *text = session_model(&s, 0) ? NULL : prompt_read(&s, &len);
	if (!text || prompt_ids(&s, text, len, false, &ids))
		goto out;
	int64_t ctx = session_ctx(&s), n = (int64_t)ids.n / ctx;
	int64_t most = session_step(&s) < ctx ? session_step(&s) : ctx;
	if (o->chunks >= 0 && n > o->chunks)
		n = o->chunks;
	if (n < 1 || ctx < 4) {
		wf_fail(&s.err, "the text has %zu tokens, expected at least a window of %lld", ids.n, (long long)ctx);
		goto out;
	}
	struct wf_sizes sizes = {.tokens = most, .seqs = 1, .rows = most, .ctx = ctx};
	if (session_plan(&s, &sizes, NULL) || session_runner(&s, &sizes, false))
		goto out;
	catch_interrupt(false);
	code = measure(&s, &ids, n, ctx);
out:
	free(text);
	tokens_free(&ids);
	if (code < 0)
		return session_failed(&s);
	session_close(&s);
	return close_stdout(o, code);
}
