/* jinja_lex.c - template source to tokens.
 *
 * Text runs up to the next "{%", "{{" or "{#"; which white space around a tag goes follows Jinja with
 * trim_blocks and lstrip_blocks: blanks before a tag that starts its line and the newline after a tag
 * go, "-" takes all white space on its side, "+" keeps it.  Comments and raw blocks end here. */
#include "models/text/jinja.h"

#include <ctype.h>
#include <stdlib.h>

enum { NOTHING, TAG, PRINT, COMMENT, RAW, END };

static int fail(struct lexer *lx, const char *what)
{
	return wf_fail(lx->err, "template line %d: %s", lx->line, what);
}

static void advance(struct lexer *lx, const char *to)
{
	for (; lx->p < to; lx->p++)
		lx->line += *lx->p == '\n';
}

static const char *skip_space(const char *p, const char *end)
{
	size_t n;

	while (p < end && string_is_space(string_get(p, end, &n)))
		p += n;
	return p;
}

int lex_open(struct lexer *lx, wf_arena *arena, wf_error *err, const char *source, size_t len)
{
	*lx = (struct lexer){.arena = arena, .err = err, .in = T_TEXT, .line = 1};
	if (len > SOURCE_LIMIT)
		return wf_fail(err, "template: at most %d bytes of source, found %zu", SOURCE_LIMIT, len);
	char *out = wf_alloc(arena, len + 1);
	if (!out)
		return wf_fail(err, "template: out of memory for %zu bytes of source", len);
	lx->start = lx->p = out;
	for (size_t i = 0; i < len; i++) {
		if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n')
			continue;
		*out++ = source[i] == '\r' ? '\n' : source[i];
	}
	if (out > lx->start && out[-1] == '\n')
		out--;
	lx->end = out;
	return 0;
}

static const char *find_begin(const char *p, const char *end)
{
	while ((p = memchr(p, '{', (size_t)(end - p)))) {
		if (p + 1 < end && memchr("%{#", p[1], 3))
			return p;
		p++;
	}
	return end;
}

/* Behind "{% raw %}" when that is at p, else NULL. */
static const char *match_raw(const char *p, const char *end)
{
	p += 2;
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	p = skip_space(p, end);
	if (end - p < 3 || memcmp(p, "raw", 3))
		return NULL;
	p = skip_space(p + 3, end);
	if (end - p >= 3 && !memcmp(p, "-%}", 3))
		return skip_space(p + 3, end);
	return end - p >= 2 && !memcmp(p, "%}", 2) ? p + 2 : NULL;
}

static const char *strip_right(const char *start, const char *end)
{
	size_t n;

	while (start < end && string_is_space(string_back(start, end, &n)))
		end -= n;
	return end;
}

/* Where the text [start, tag) ends once the white space that the tag at `tag` takes is gone. */
static const char *text_end(const struct lexer *lx, const char *start, const char *tag)
{
	char sign = tag + 2 < lx->end ? tag[2] : 0;

	if (sign == '-')
		return strip_right(start, tag);
	if (sign == '+' || tag[1] == '{')
		return tag;
	const char *line = memrchr(start, '\n', (size_t)(tag - start));
	if (!line && start != lx->start && start[-1] != '\n')
		return tag;
	line = line ? line + 1 : start;
	return skip_space(line, tag) == tag ? line : tag;
}

static void set_text(struct token *tok, const char *s, const char *end)
{
	tok->kind = T_TEXT;
	tok->value = value_text(s, (size_t)(end - s));
}

/* The text before the next tag; notes what begins there. */
static void scan_text(struct lexer *lx, struct token *tok)
{
	const char *start = lx->p, *tag = find_begin(start, lx->end), *raw;

	tok->line = lx->line;
	if (tag == lx->end) {
		set_text(tok, start, tag);
		advance(lx, tag);
		lx->begin = END;
		return;
	}
	set_text(tok, start, text_end(lx, start, tag));
	if (tag[1] == '%' && (raw = match_raw(tag, lx->end))) {
		advance(lx, raw);
		lx->begin = RAW;
		return;
	}
	lx->begin = tag[1] == '%' ? TAG : tag[1] == '{' ? PRINT : COMMENT;
	advance(lx, tag + 2);
	if (lx->p < lx->end && (*lx->p == '-' || *lx->p == '+'))
		lx->p++;
}

/* Behind a tag's end at p, with the white space it takes; NULL when there is none.  A print tag keeps
 * the newline after it and knows no "+". */
static const char *match_end(const char *p, const char *end, char mark)
{
	if (end - p >= 3 && *p == '-' && p[1] == mark && p[2] == '}')
		return skip_space(p + 3, end);
	if (end - p >= 3 && *p == '+' && mark != '}' && p[1] == mark && p[2] == '}')
		return p + 3;
	if (end - p < 2 || *p != mark || p[1] != '}')
		return NULL;
	p += 2;
	return mark != '}' && p < end && *p == '\n' ? p + 1 : p;
}

static int skip_comment(struct lexer *lx)
{
	for (const char *p = lx->p; p < lx->end; p++) {
		const char *behind = match_end(p, lx->end, '#');
		if (behind) {
			advance(lx, behind);
			return 0;
		}
	}
	return fail(lx, "expected #} to end a comment");
}

static const char *match_endraw(const char *p, const char *end)
{
	p += 2;
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	p = skip_space(p, end);
	if (end - p < 6 || memcmp(p, "endraw", 6))
		return NULL;
	return match_end(skip_space(p + 6, end), end, '%');
}

static int scan_raw(struct lexer *lx, struct token *tok)
{
	const char *start = lx->p, *behind;

	tok->line = lx->line;
	for (const char *p = start; lx->end - p >= 2; p++) {
		if (*p != '{' || p[1] != '%' || !(behind = match_endraw(p, lx->end)))
			continue;
		set_text(tok, start, text_end(lx, start, p));
		advance(lx, behind);
		return 0;
	}
	return fail(lx, "expected endraw");
}

/* ---- inside a tag ---- */

static bool is_digit(int c, int base)
{
	return base == 16 ? isxdigit(c) : c >= '0' && c < '0' + base;
}

static int hex_digit(char c)
{
	return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

/* Digits with single underscores between them; copies them to out (NULL: only measures). */
static const char *digits(const char *p, const char *end, int base, char **out)
{
	while (p < end) {
		const char *d = p + (*p == '_');
		if (d == end || !is_digit((unsigned char)*d, base))
			break;
		if (out)
			*(*out)++ = *d;
		p = d + 1;
	}
	return p;
}

static int scan_based(struct lexer *lx, struct token *tok, const char *p, int base)
{
	const char *end = digits(p, lx->end, base, NULL);
	int64_t n = 0;

	for (; p < end; p++) {
		if (*p != '_' &&
				(__builtin_mul_overflow(n, base, &n) ||
				__builtin_add_overflow(n, hex_digit(*p), &n)))
			return fail(lx, "expected a number below 2^63");
	}
	tok->value = value_int(n);
	advance(lx, end);
	return 0;
}

/* Behind a fraction or exponent at p, else p. */
static const char *match_fraction(const char *p, const char *end)
{
	const char *q = p;

	if (q + 1 < end && *q == '.' && isdigit((unsigned char)q[1]))
		q = digits(q + 1, end, 10, NULL);
	if (q + 1 < end && (*q == 'e' || *q == 'E')) {
		const char *e = q + 1 + (q[1] == '+' || q[1] == '-');
		if (e < end && isdigit((unsigned char)*e))
			q = digits(e, end, 10, NULL);
	}
	return q;
}

static int scan_float(struct lexer *lx, struct token *tok, const char *end)
{
	char text[320], *out = text;

	if ((size_t)(end - lx->p) >= sizeof text)
		return fail(lx, "expected a shorter number");
	for (const char *p = lx->p; p < end; p++)
		if (*p != '_')
			*out++ = *p;
	*out = 0;
	tok->value = value_float(number_read(text, NULL));
	advance(lx, end);
	return 0;
}

static int scan_number(struct lexer *lx, struct token *tok)
{
	const char *p = lx->p, *end = digits(p, lx->end, 10, NULL),
			*behind = match_fraction(end, lx->end);
	bool after_dot = p > lx->start && p[-1] == '.';         /* a.0.1 is two indices */

	tok->kind = T_VALUE;
	if (behind > end && !after_dot)
		return scan_float(lx, tok, behind);
	if (*p == '0' && lx->end - p > 2 && strchr("xXoObB", p[1]) && p[1]) {
		int base = (p[1] | 32) == 'x' ? 16 : (p[1] | 32) == 'o' ? 8 : 2;
		const char *first = p + 2 + (p[2] == '_');
		if (first < lx->end && is_digit((unsigned char)*first, base))
			return scan_based(lx, tok, p + 2, base);
	}
	if (*p == '0' && end > p + 1 && strspn(p, "0_") < (size_t)(end - p))
		return fail(lx, "expected a number without leading zeros");
	return scan_based(lx, tok, p, 10);
}

static int hex_escape(const char *p, const char *end, int n, int32_t *c)
{
	uint32_t code = 0;

	if (end - p < n)
		return -1;
	for (int i = 0; i < n; i++) {
		if (!isxdigit((unsigned char)p[i]))
			return -1;
		code = code << 4 | (uint32_t)hex_digit(p[i]);
	}
	*c = (int32_t)code;
	return code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? -1 : 0;
}

static const char *octal_escape(const char *p, const char *end, int32_t *c)
{
	*c = 0;
	for (int i = 0; i < 3 && p < end && *p >= '0' && *p < '8'; i++)
		*c = *c << 3 | (*p++ - '0');
	return p;
}

/* The escape behind the backslash at p, written at *out; behind it, or NULL when it is malformed. */
static const char *unescape(const char *p, const char *end, char **out)
{
	static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
	const char *plain = memchr(from, *p, sizeof from - 1);
	int32_t c;

	if (*p == '\n')
		return p + 1;
	if (plain) {
		*(*out)++ = to[plain - from];
		return p + 1;
	}
	if (*p >= '0' && *p < '8') {
		p = octal_escape(p, end, &c);
	} else if (*p == 'x' || *p == 'u' || *p == 'U') {
		int n = *p == 'x' ? 2 : *p == 'u' ? 4 : 8;
		if (hex_escape(p + 1, end, n, &c) < 0)
			return NULL;
		p += 1 + n;
	} else if (*p == 'N') {
		return NULL;
	} else {
		*(*out)++ = '\\';
		return p;
	}
	*out += string_put(*out, c);
	return p;
}

static int scan_string(struct lexer *lx, struct token *tok)
{
	const char *p = lx->p + 1, *end = p;

	while (end < lx->end && *end != *lx->p)
		end += *end == '\\' ? 2 : 1;
	if (end >= lx->end)
		return fail(lx, "expected a quote to end a string");
	char *s = wf_alloc(lx->arena, (size_t)(end - p) + 1), *out = s;
	if (!s)
		return fail(lx, "out of memory");
	while (p < end) {
		if (*p != '\\')
			*out++ = *p++;
		else if (!(p = unescape(p + 1, end, &out)))
			return fail(lx, "expected an escape as \\n, \\x41 or \\u00e9 in a string");
	}
	tok->kind = T_VALUE;
	tok->value = value_text(s, (size_t)(out - s));
	advance(lx, end + 1);
	return 0;
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

static void scan_name(struct lexer *lx, struct token *tok)
{
	const char *p = lx->p;

	while (p < lx->end && is_name(*p))
		p++;
	tok->kind = T_NAME;
	tok->value = value_text(lx->p, (size_t)(p - lx->p));
	lx->p = p;
}

/* Brackets nest in Jinja's lexer, so that "}}" can end a dict within a print tag. */
static int balance(struct lexer *lx, char c)
{
	const char *pair = memchr("()[]{}", c, 6);

	if (!pair)
		return 0;
	if (strchr("([{", c)) {
		if (lx->nopen == NEST_LIMIT)
			return fail(lx, "expected less than 64 open brackets");
		lx->open[lx->nopen++] = c == '(' ? ')' : c == '[' ? ']' : '}';
		return 0;
	}
	if (!lx->nopen || lx->open[--lx->nopen] != c)
		return fail(lx, "found a closing bracket that was not opened");
	return 0;
}

static int scan_op(struct lexer *lx, struct token *tok)
{
	static const char pairs[] = "==!=<=>=//**";
	const char *p = lx->p;

	tok->kind = T_OP;
	for (size_t i = 0; lx->end - p >= 2 && i < sizeof pairs - 1; i += 2) {
		if (memcmp(p, pairs + i, 2) == 0) {
			tok->op = OP2(p[0], p[1]);
			lx->p += 2;
			return 0;
		}
	}
	if (!*p || !strchr("+-*/%~()[]{}<>=.:|,;", *p))
		return wf_fail(lx->err, "template line %d: unexpected character 0x%02x", lx->line,
				(unsigned char)*p);
	if (balance(lx, *p) < 0)
		return -1;
	tok->op = *lx->p++;
	return 0;
}

static int scan_inside(struct lexer *lx, struct token *tok)
{
	const char *behind;

	advance(lx, skip_space(lx->p, lx->end));
	tok->line = lx->line;
	if (lx->p == lx->end)
		return fail(lx, lx->in == T_TAG ? "expected %}" : "expected }}");
	if (!lx->nopen && (behind = match_end(lx->p, lx->end, lx->in == T_TAG ? '%' : '}'))) {
		tok->kind = lx->in == T_TAG ? T_TAG_END : T_PRINT_END;
		lx->in = T_TEXT;
		advance(lx, behind);
		return 0;
	}
	if (isdigit((unsigned char)*lx->p))
		return scan_number(lx, tok);
	if (*lx->p == '"' || *lx->p == '\'')
		return scan_string(lx, tok);
	if (!is_name(*lx->p))
		return scan_op(lx, tok);
	scan_name(lx, tok);
	return 0;
}

static int scan_outside(struct lexer *lx, struct token *tok)
{
	for (;;) {
		int begin = lx->begin;

		lx->begin = NOTHING;
		if (begin == NOTHING)
			scan_text(lx, tok);
		else if (begin == RAW && scan_raw(lx, tok) < 0)
			return -1;
		if ((begin == NOTHING || begin == RAW) && tok->value.len)
			return 0;
		if (begin == COMMENT && skip_comment(lx) < 0)
			return -1;
		if (begin != TAG && begin != PRINT && begin != END)
			continue;
		tok->kind = begin == END ? T_EOF : begin == TAG ? T_TAG : T_PRINT;
		tok->line = lx->line;
		lx->begin = begin == END ? END : NOTHING;
		if (begin != END)
			lx->in = tok->kind;
		return 0;
	}
}

int lex_next(struct lexer *lx, struct token *tok)
{
	*tok = (struct token){.kind = T_EOF, .line = lx->line};
	return lx->in == T_TEXT ? scan_outside(lx, tok) : scan_inside(lx, tok);
}
