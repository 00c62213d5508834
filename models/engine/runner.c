/* runner.c - a plan with its KV pages and its executor: appends tokens to sequences, yields logits.
 *
 * Builds the batch descriptor of each step in arrays made once; a step allocates nothing. */
#include "models/model.h"
#include <stdlib.h>
#include <string.h>

struct wf_runner {
	wf_error *err;
	wf_plan *plan;
	wf_slab *slab;
	wf_exec *exec;
	int64_t ids;                          /* rows of the token table: ids run below it */
	int32_t *token, *pos, *row, *seq_start, *seq_len;
	const int32_t **page;
	struct wf_slab_copy *copy;            /* [max seqs * classes] */
	struct wf_pick *pick;                 /* [max rows] */
	int chosen;                           /* rows of the step before, when it chose tokens */
};

enum { PAGE_TOKENS = 64 };

/* Enough pages of each class for ctx tokens, and one part-filled page per sequence. */
static wf_slab *make_slab(wf_runner *r, const struct wf_runner_opt *opt, int page_tokens)
{
	const wf_plan *plan = r->plan;
	int64_t npage[plan->nkvclass + 1];

	for (int c = 0; c < plan->nkvclass; c++) {
		int64_t tokens = opt->ctx, window = plan->kvclass[c].window;
		if (window && (window + plan->opt.max_tokens) * plan->opt.max_seqs < tokens)
			tokens = (window + plan->opt.max_tokens) * plan->opt.max_seqs;
		npage[c] = (tokens + page_tokens - 1) / page_tokens + plan->opt.max_seqs;
	}
	return wf_slab_new(r->err, plan->kvclass, plan->nkvclass, page_tokens, npage);
}

static int make_arrays(wf_runner *r)
{
	const struct wf_plan_opt *most = &r->plan->opt;
	size_t nclass = r->plan->nkvclass ? r->plan->nkvclass : 1;

	r->token = calloc(most->max_tokens, sizeof *r->token);
	r->pos = calloc(most->max_tokens, sizeof *r->pos);
	r->row = calloc(most->max_rows, sizeof *r->row);
	r->seq_start = calloc(most->max_seqs + 1, sizeof *r->seq_start);
	r->seq_len = calloc(most->max_seqs, sizeof *r->seq_len);
	r->page = calloc(most->max_seqs * nclass, sizeof *r->page);
	r->copy = calloc(most->max_seqs * nclass, sizeof *r->copy);
	r->pick = calloc(most->max_rows, sizeof *r->pick);
	if (!r->token || !r->pos || !r->row || !r->seq_start || !r->seq_len || !r->page || !r->copy || !r->pick)
		return wf_fail(r->err, "runner: out of memory");
	return 0;
}

/* The smallest table that "tokens" indexes. */
static int64_t count_ids(const wf_graph *g)
{
	int64_t ids = INT32_MAX;

	for (int i = 0; i < g->nnode; i++)
		for (int k = 1; k < g->node[i]->nin; k++) {
			const wf_tensor *in = g->node[i]->in[k], *table = g->node[i]->in[0];
			if (in->op == &wf_op_input && !strcmp(in->name, "tokens") && table->constant && table->dim[0] < ids)
				ids = table->dim[0];
		}
	return ids;
}

wf_runner *wf_runner_new(wf_error *err, wf_plan *plan, const struct wf_runner_opt *opt)
{
	wf_runner *r = calloc(1, sizeof *r);
	struct wf_exec_opt exec = opt->exec;

	if (!r) {
		wf_fail(err, "runner: out of memory");
		return NULL;
	}
	*r = (wf_runner){.err = err, .plan = plan, .ids = count_ids(plan->g)};
	if (plan->stage != PLAN_PLACE) {
		wf_fail(err, "runner: the plan stops after %s, expected place", plan_stage_names[plan->stage]);
		goto fail;
	}
	r->slab = make_slab(r, opt, opt->page_tokens ? opt->page_tokens : PAGE_TOKENS);
	if (!r->slab || make_arrays(r))
		goto fail;
	exec.slab = r->slab;
	exec.ctx = opt->ctx;
	r->exec = plan->backend->open(plan->backend, plan, err, &exec);
	if (!r->exec)
		goto fail;
	return r;
fail:
	wf_runner_free(r);
	return NULL;
}

void wf_runner_free(wf_runner *r)
{
	if (!r)
		return;
	if (r->exec)
		r->exec->close(r->exec);
	wf_slab_free(r->slab);
	free(r->token);
	free(r->pos);
	free(r->row);
	free(r->seq_start);
	free(r->seq_len);
	free(r->page);
	free(r->copy);
	free(r->pick);
	free(r);
}

wf_slab *wf_runner_slab(wf_runner *r)
{
	return r->slab;
}

wf_exec *wf_runner_exec(wf_runner *r)
{
	return r->exec;
}

int64_t wf_runner_max_tokens(const wf_runner *r)
{
	return r->plan->opt.max_tokens;
}

static int rows_of(const struct wf_piece *p)
{
	return p->no_rows ? 0 : p->all_rows ? p->n : 1;
}

static int check_pieces(wf_runner *r, const struct wf_piece *piece, int n)
{
	const struct wf_plan_opt *most = &r->plan->opt;
	int64_t tokens = 0, rows = 0;

	for (int i = 0; i < n; i++) {
		if (piece[i].n < 1)
			return wf_fail(r->err, "step: a sequence without tokens");
		tokens += piece[i].n;
		rows += rows_of(&piece[i]);
		for (int k = 0; k < piece[i].n; k++)
			if (piece[i].token[k] < -r->chosen || piece[i].token[k] >= r->ids)
				return wf_fail(r->err, "step: token id %d, expected 0 to %lld", piece[i].token[k], (long long)r->ids - 1);
	}
	for (int i = 0; i < n; i++)
		if (!piece[i].pick != !piece[0].pick || (piece[i].pick && !r->exec->picked))
			return wf_fail(r->err, "step: every piece chooses a token, or none, where the backend can");
	if (n < 1 || n > most->max_seqs || tokens > most->max_tokens || rows > most->max_rows)
		return wf_fail(r->err, "step: %d sequences, %lld tokens, %lld rows; the plan takes up to %lld, %lld, %lld",
			n, (long long)tokens, (long long)rows, (long long)most->max_seqs,
			(long long)most->max_tokens, (long long)most->max_rows);
	return 0;
}

/* Room for every piece, or for none. */
static int extend_all(wf_runner *r, const struct wf_piece *piece, int n, int *ncopy)
{
	const struct wf_slab_copy *copy;
	int more;

	*ncopy = 0;
	for (int i = 0; i < n; i++) {
		if (!wf_seq_extend(r->slab, piece[i].seq, piece[i].n, &copy, &more)) {
			memcpy(r->copy + *ncopy, copy, sizeof *copy * more);
			*ncopy += more;
			continue;
		}
		while (i-- > 0)
			wf_seq_truncate(r->slab, piece[i].seq, wf_seq_len(piece[i].seq) - piece[i].n);
		return 1;
	}
	return 0;
}

static void bind(wf_runner *r, const struct wf_piece *piece, int n, wf_batch *b)
{
	int nclass = wf_slab_nclass(r->slab), npages;

	*b = (wf_batch){.nseq = n, .token = r->token, .pos = r->pos, .row = r->row,
		.seq_start = r->seq_start, .seq_len = r->seq_len, .page = r->page};
	for (int i = 0; i < n; i++) {
		int64_t len = wf_seq_len(piece[i].seq);
		r->seq_start[i] = b->ntoken;
		r->seq_len[i] = (int32_t)len;
		for (int c = 0; c < nclass; c++)
			r->page[i * nclass + c] = wf_seq_pages(piece[i].seq, c, &npages);
		for (int k = rows_of(&piece[i]); k > 0; k--) {
			if (piece[i].pick)
				r->pick[b->nrow] = *piece[i].pick;
			r->row[b->nrow++] = b->ntoken + piece[i].n - k;
		}
		for (int k = 0; k < piece[i].n; k++) {
			r->token[b->ntoken] = piece[i].token[k];
			r->pos[b->ntoken++] = (int32_t)(len - piece[i].n + k);
		}
	}
	r->seq_start[n] = b->ntoken;
	b->pick = piece[0].pick ? r->pick : NULL;
}

int wf_runner_step(wf_runner *r, const struct wf_piece *piece, int n, const float **logits, int *nrow)
{
	wf_batch batch;
	int ncopy;

	if (check_pieces(r, piece, n))
		return -1;
	if (extend_all(r, piece, n, &ncopy))
		return 1;
	bind(r, piece, n, &batch);
	if ((ncopy && r->exec->copy_pages(r->exec, r->copy, ncopy)) || r->exec->step(r->exec, &batch))
		return -1;
	*nrow = batch.nrow;
	*logits = NULL;
	r->chosen = batch.pick ? batch.nrow : 0;
	if (batch.pick)
		return 0;
	*logits = batch.nrow ? r->exec->output(r->exec, "logits") : NULL;
	return batch.nrow && !*logits ? wf_fail(r->err, "step: the graph has no output named logits") : 0;
}

bool wf_runner_can_pick(const wf_runner *r)
{
	return r->exec->picked != NULL;
}

const int32_t *wf_runner_picked(wf_runner *r)
{
	return r->exec->picked(r->exec);
}
