/* fakenvrtc.c - a libnvrtc.so.13 beside the stand-in driver.
 *
 * It compiles anything to an empty ELF at once; or, with FAKENVRTC naming a C++ compiler, a page to a
 * shared object whose kernels the stand-in driver runs on the CPU (emulate.h). */
#include <elf.h>
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EMPTY = 64, MAXNAME = 64 };

struct program {
	char *source, *image;
	size_t bytes;
	int n;
	const char *const *text, *const *name;        /* the caller's, until it is compiled */
	char log[2000];
};

nvrtcResult nvrtcVersion(int *major, int *minor)
{
	*major = 13;
	*minor = 0;
	return NVRTC_SUCCESS;
}

const char *nvrtcGetErrorString(nvrtcResult result)
{
	return result == NVRTC_SUCCESS ? "success" : "fake failure";
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *p, const char *source, const char *name, int n, const char *const *text,
		const char *const *names)
{
	struct program *made = calloc(1, sizeof *made);

	(void)name;
	*p = (nvrtcProgram)made;
	if (!made || !(made->source = strdup(source)))
		return NVRTC_ERROR_OUT_OF_MEMORY;
	made->n = n;
	made->text = text;
	made->name = names;
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram *p)
{
	struct program *gone = (struct program *)*p;

	free(gone->source);
	free(gone->image);
	free(gone);
	return NVRTC_SUCCESS;
}

/* ---- a page as C++ ---- */

/* A block's shared memory is one array that lives outside. */
static void write_text(FILE *f, const char *s)
{
	static const char outside[] = "extern __shared__";

	for (const char *at; (at = strstr(s, outside)); s = at + sizeof outside - 1)
		fprintf(f, "%.*sextern", (int)(at - s), s);
	fputs(s, f);
}

static int write_file(const char *dir, const char *name, const char *text, const char *after)
{
	char path[300];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	if (!f)
		return -1;
	write_text(f, text);
	fputs(after, f);
	return fclose(f);
}

/* The name after each "__global__ ... void [__launch_bounds__(...)]"; an entry for the driver to call it by. */
static void add_entries(const char *text, char *out, size_t cap)
{
	static const char bounds[] = "__launch_bounds__(";

	for (const char *at = text; (at = strstr(at, "extern \"C\" __global__")); ) {
		char name[MAXNAME];
		size_t n;
		at += strlen("extern \"C\" __global__");
		for (;;) {
			at += strspn(at, " \n\t");
			n = strcspn(at, " \n\t(");
			if (!strncmp(at, bounds, sizeof bounds - 1))
				at += strcspn(at, ")") + 1;
			else if (at[n] == '(')
				break;
			else
				at += n;
		}
		snprintf(name, sizeof name, "%.*s", (int)n, at);
		size_t len = strlen(out);
		snprintf(out + len, cap - len, "\nextern \"C\" void emulate_%s(const void *p, const unsigned *grid, const unsigned *block,\n"
			"\t\tunsigned bytes)\n{\n\temu_run(%s, p, grid, block, bytes);\n}\n", name, name);
	}
}

static const char *text_of(const struct program *p, const char *name)
{
	for (int i = 0; i < p->n; i++)
		if (!strcmp(p->name[i], name))
			return p->text[i];
	return NULL;
}

/* Of the page's own text and of what it includes at its end. */
static void entries(const struct program *p, char *out, size_t cap)
{
	const char *last = NULL, *text;
	char name[MAXNAME];

	*out = 0;
	add_entries(p->source, out, cap);
	for (const char *at = p->source; (at = strstr(at, "#include \"")); at += 10)
		last = at + 10;
	if (!last || *out)
		return;
	snprintf(name, sizeof name, "%.*s", (int)strcspn(last, "\""), last);
	if ((text = text_of(p, name)))
		add_entries(text, out, cap);
}

/* A cubin's symbols count from where their section begins, a shared object's from where it does itself. */
static void turn_symbols(char *image)
{
	const Elf64_Ehdr *head = (const Elf64_Ehdr *)(void *)image;
	const Elf64_Shdr *section = (const Elf64_Shdr *)(void *)(image + head->e_shoff);

	for (int i = 0; i < head->e_shnum; i++) {
		Elf64_Sym *sym = (Elf64_Sym *)(void *)(image + section[i].sh_offset);
		size_t n = section[i].sh_type == SHT_SYMTAB ? section[i].sh_size / sizeof *sym : 0;
		for (size_t k = 0; k < n; k++)
			if (ELF64_ST_TYPE(sym[k].st_info) == STT_OBJECT && sym[k].st_shndx < head->e_shnum)
				sym[k].st_value -= section[sym[k].st_shndx].sh_addr;
	}
}

static int read_image(struct program *p, const char *path)
{
	FILE *f = fopen(path, "rb");

	if (!f)
		return -1;
	fseek(f, 0, SEEK_END);
	p->bytes = (size_t)ftell(f);
	rewind(f);
	p->image = malloc(p->bytes);
	int failed = !p->image || fread(p->image, 1, p->bytes, f) != p->bytes;
	fclose(f);
	if (!failed)
		turn_symbols(p->image);
	return failed ? -1 : 0;
}

static nvrtcResult compile(struct program *p, const char *compiler, const char *arch)
{
	char dir[] = "/tmp/fakenvrtc-XXXXXX", command[1000], after[4000], path[300];
	const char *home = getenv("FAKENVRTC_HOME");

	if (!mkdtemp(dir))
		return NVRTC_ERROR_OUT_OF_MEMORY;
	entries(p, after, sizeof after);
	int failed = write_file(dir, "page.cu", p->source, after);
	for (int i = 0; i < p->n; i++)
		failed |= write_file(dir, p->name[i], p->text[i], "");
	snprintf(command, sizeof command, "%s -x c++ -std=c++17 -O1 -w -fpermissive -fPIC -shared -fsanitize=alignment "
		"-fsanitize-undefined-trap-on-error -fno-strict-aliasing -fno-weak -ffp-contract=off -D__CUDA_ARCH__=%s0 -I%s -include %s/emulate.h "
		"%s/page.cu -o %s/page.so > %s/log 2>&1", compiler, arch, dir, home ? home : "tests", dir, dir, dir);
	failed = failed || system(command);
	snprintf(path, sizeof path, "%s/log", dir);
	FILE *log = failed ? fopen(path, "r") : NULL;
	if (log) {
		p->log[fread(p->log, 1, sizeof p->log - 1, log)] = 0;
		fclose(log);
	}
	snprintf(path, sizeof path, "%s/page.so", dir);
	failed = failed || read_image(p, path);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) || failed ? NVRTC_ERROR_COMPILATION : NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram handle, int n, const char *const *options)
{
	struct program *p = (struct program *)handle;
	const char *compiler = getenv("FAKENVRTC");
	char arch[8] = "80";

	for (int i = 0; i < n; i++)
		if (strstr(options[i], "sm_"))
			snprintf(arch, sizeof arch, "%.*s", (int)strspn(strstr(options[i], "sm_") + 3, "0123456789"), strstr(options[i], "sm_") + 3);
	if (compiler)
		return compile(p, compiler, arch);
	p->bytes = EMPTY;
	p->image = calloc(1, EMPTY);
	if (!p->image)
		return NVRTC_ERROR_OUT_OF_MEMORY;
	memcpy(p->image, "\177ELF", 4);
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t *bytes)
{
	*bytes = ((struct program *)p)->bytes;
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char *to)
{
	memcpy(to, ((struct program *)p)->image, ((struct program *)p)->bytes);
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram p, size_t *bytes)
{
	*bytes = strlen(((struct program *)p)->log) + 1;
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram p, char *to)
{
	strcpy(to, ((struct program *)p)->log);
	return NVRTC_SUCCESS;
}
