/* report.c - messages, numbers and the terminal. */
#include "tools/weft.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

volatile sig_atomic_t interrupted;
int interrupt_fd = -1;

/* ---- messages ---- */

static int message(const struct options *o, int code, const char *fmt, va_list ap)
{
	fflush(stdout);
	fprintf(stderr, "%sweft %s:%s ", style(stderr, "1;31"), commands[o->command].name, style(stderr, "0"));
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	return code;
}

int failed(const struct options *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int code = message(o, WEFT_FAILED, fmt, ap);
	va_end(ap);
	return code;
}

int misused(const struct options *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int code = message(o, WEFT_USAGE, fmt, ap);
	va_end(ap);
	fprintf(stderr, "Try 'weft %s --help'.\n", commands[o->command].name);
	return code;
}

void say(const struct options *o, const char *fmt, ...)
{
	va_list ap;

	if (o->quiet)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
}

void say_more(const struct options *o, const char *fmt, ...)
{
	va_list ap;

	if (!o->verbose)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
}

/* ---- the terminal ---- */

bool is_plain(FILE *f)
{
	const char *none = getenv("NO_COLOR"), *term = getenv("TERM");

	return (none && *none) || !isatty(fileno(f)) || (term && !strcmp(term, "dumb"));
}

const char *style(FILE *f, const char *codes)
{
	static char ring[8][16];
	static int at;

	if (is_plain(f))
		return "";
	at = (at + 1) % 8;
	snprintf(ring[at], sizeof ring[at], "\033[%sm", codes);
	return ring[at];
}

int close_stdout(const struct options *o, int code)
{
	if (fflush(stdout) || ferror(stdout))
		return failed(o, "cannot write to standard output");
	return code;
}

static void on_interrupt(int sig)
{
	int before = errno;
	ssize_t n = write(interrupt_fd, &(uint64_t){1}, sizeof(uint64_t));

	(void)sig;
	(void)n;
	interrupted = 1;
	errno = before;
}

/* Restarting: an answer's text is still written whole when Ctrl-C comes between two words. */
void catch_interrupt(bool again)
{
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART | (again ? 0 : (int)SA_RESETHAND)};

	if (again)
		interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
}

void forget_interrupt(void)
{
	ssize_t n = read(interrupt_fd, &(uint64_t){0}, sizeof(uint64_t));

	(void)n;
	interrupted = 0;
}

/* ---- numbers ---- */

const char *bytes_text(double bytes, char out[32])
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	int u = 0;

	for (; (bytes >= 1000 || bytes <= -1000) && u < 4; u++)
		bytes /= 1024;
	snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", bytes, unit[u]);
	return out;
}

const char *count_text(double n, char out[32])
{
	static const char *const unit[] = {"", " k", " M", " G", " T"};
	int u = 0;

	for (; n >= 1000 && u < 4; u++)
		n /= 1000;
	snprintf(out, 32, u ? "%.2f%s" : "%.0f%s", n, unit[u]);
	return out;
}

const char *seconds_text(double s, char out[32])
{
	if (s >= 1)
		snprintf(out, 32, "%.2f s", s);
	else if (s >= 1e-3)
		snprintf(out, 32, "%.2f ms", s * 1e3);
	else
		snprintf(out, 32, "%.2f us", s * 1e6);
	return out;
}

const char *opened_text(const struct wf_opened *opened, char out[160])
{
	char load[32], compile[32];

	out[0] = 0;
	if (opened)
		snprintf(out, 160, " (%.2f GB of weights in %s, %.1f GB/s; %d programs compiled and %d found in %s)",
			(double)opened->load_bytes * 1e-9, seconds_text(opened->load_s, load),
			opened->load_s > 0 ? (double)opened->load_bytes * 1e-9 / opened->load_s : 0, opened->compiled,
			opened->cached, seconds_text(opened->compile_s, compile));
	return out;
}

double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int cpu_count(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
}
