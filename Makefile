#: make             ./weft, build/libweft.a and build/libweft.so; RELEASE=1 leaves assertions out
#: make demo        install what is missing, get a real model, answer a prompt
#: make check       install what is missing, run every test that needs no GPU: SAN=address,undefined FUZZ=60
#: make check-cuda  run every test that needs a GPU
#: make tests fuzz  only build them: build/tests/NAME, build/fuzz/NAME
#: make install     PREFIX=/usr/local DESTDIR=
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
SAN     ?=
PREFIX  ?= /usr/local
CUDA    ?= $(firstword $(wildcard /usr/local/cuda) $(CUDA_HOME))
B       := build$(if $(SAN),-san)

WARN    := -Wall -Wextra -Wshadow -Wmissing-prototypes
CFLAGS  ?= -O2 -g
override CFLAGS += -std=c11 -D_GNU_SOURCE -I. -I$B -fPIC -fno-math-errno -ffp-contract=off -pthread $(WARN) -MMD -MP \
           $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -DWF_SANITIZE) $(if $(RELEASE),-DNDEBUG)

# Small libraries go in statically where Debian ships the archive, so the binary runs elsewhere.
LIBDIR  := $(shell $(CC) -print-multiarch 2>/dev/null)
archive  = $(if $(wildcard /usr/lib/$(LIBDIR)/lib$1.a),-l:lib$1.a,-l$1)
LIBS    := $(call archive,jansson) $(call archive,pcre2-8) $(call archive,utf8proc) -lm -ldl -lpthread
EDIT    := $(call archive,edit) $(call archive,bsd) $(call archive,md) $(call archive,tinfo)

SIMD    := $(wildcard backends/cpu/simd/*.c)
SRC     := $(wildcard graph/*.c ops/*.c backends/*.c backends/cpu/*.c backends/cuda/*.c \
             models/*.c models/arch/*.c models/files/*.c models/text/*.c models/engine/*.c)
TOOLS   := $(filter-out tools/embed.c,$(wildcard tools/*.c))
CUH     := $(wildcard backends/cuda/*.cuh)
ISAS    := $(if $(findstring x86_64,$(LIBDIR)),avx512 avx2) plain
OBJ     := $(SRC:%.c=$B/%.o) $(foreach i,$(ISAS),$(SIMD:%.c=$B/%.$i.o)) $B/embedded.o
UNITS   := $(patsubst tests/unit/%.c,$B/tests/%,$(wildcard tests/unit/*.c)) $B/render
FUZZERS := $(patsubst tests/fuzz/%.c,$B/fuzz/%,$(wildcard tests/fuzz/*.c))

ISA_avx512 := -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mfma -mf16c -mprefer-vector-width=512
ISA_avx2   := -O3 -mavx2 -mfma -mf16c
ISA_plain  := -O3

BIN     := $(if $(SAN),$B/weft,weft)
all: $(BIN) $B/libweft.a $B/libweft.so

# Other flags, other objects (make RELEASE=1 after make); but what is built is what gets installed, and -n writes nothing.
FLAGS   := $(CC) $(CFLAGS) $(CUDA)
KEEP    := $(filter install,$(MAKECMDGOALS))$(findstring n,$(firstword -$(MAKEFLAGS)))
$(if $(and $(KEEP),$(wildcard $B/flags)),,$(shell mkdir -p $B; echo '$(FLAGS)' | cmp -s - $B/flags || echo '$(FLAGS)' > $B/flags))
$(OBJ) $(TOOLS:%.c=$B/%.o) $(UNITS): $B/flags
$(BIN): $(TOOLS:%.c=$B/%.o) $B/libweft.a
	$(CC) $(CFLAGS) $(LDFLAGS) -rdynamic -o $@ $(TOOLS:%.c=$B/%.o) -Wl,--whole-archive $B/libweft.a -Wl,--no-whole-archive $(LIBS) $(EDIT)
	@$(if $(CUDA),,echo 'no CUDA toolkit found: $@ runs on the CPU only')

$B/libweft.a: $(OBJ)
	@rm -f $@ && ar rcs $@ $^

$B/libweft.so: $(OBJ)
	@printf '{ global: wf_*; local: *; };\n' > $B/exports
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,--version-script=$B/exports -Wl,-soname,libweft.so.0 -o $@ $^ $(LIBS)

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(if $(CUDA),-I$(CUDA)/include -DWF_CUDA) -c -o $@ $<

$B/ops/%.o: override CFLAGS += -O3

define isa
$B/%.$1.o: %.c
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $(ISA_$1) -ffp-contract=fast -DISA=$1 -DISA_$1 -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call isa,$i)))

$B/embed: tools/embed.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $<
$B/embedded.c: $B/embed $(CUH)
	$B/embed $(CUH) > $@
$B/embedded.o: $B/embedded.c
	$(CC) $(CFLAGS) -Wno-overlength-strings -c -o $@ $<

$B/tests/%: tests/unit/%.c $B/libweft.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(if $(CUDA),-I$(CUDA)/include -DWF_CUDA) -Itests $(LDFLAGS) -rdynamic -o $@ $< $B/libweft.a $(LIBS) -lcmocka

# The fuzz targets see everything but the backends, compiled with coverage and sanitizers.
FUZZED  := $(patsubst %.c,$B/fuzzed/%.o,$(filter-out backends/%,$(SRC)))
FUZZCC  := clang -O1 -g -std=c11 -D_GNU_SOURCE -I. -DWF_SANITIZE -fno-sanitize-recover=undefined -MMD -MP
fuzz: $(FUZZERS)
$B/fuzzed/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZCC) -fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<
$(FUZZERS): $B/fuzz/%: tests/fuzz/%.c $(FUZZED)
	@mkdir -p $(@D)
	$(FUZZCC) -fsanitize=fuzzer,address,undefined -o $@ $< $(FUZZED) $(LIBS)

$B/bench_cpu $B/render: $B/%: tests/%.c $B/libweft.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $B/libweft.a $(LIBS)

tests: $(UNITS)
demo check check-cuda:
	@SAN=$(SAN) sh tests/$@.sh

INST    := '$(DESTDIR)$(PREFIX)'
install: $(BIN) $B/libweft.a $B/libweft.so
	for d in graph ops models backends; do install -d $(INST)/include/weft/$$d && install -m 644 $$d/*.h $(INST)/include/weft/$$d/ || exit; done
	install -d $(INST)/bin $(INST)/lib/pkgconfig $(INST)/share/man/man1 $(INST)/share/weft
	install $(BIN) $(INST)/bin/weft
	'$(abspath $(BIN))' man > $(INST)/share/man/man1/weft.1
	install -m 644 $B/libweft.a $(INST)/lib/
	install $B/libweft.so $(INST)/lib/libweft.so.0
	ln -sf libweft.so.0 $(INST)/lib/libweft.so
	install -m 644 models/example/*.c $(INST)/share/weft/
	sed 's|@PREFIX@|$(PREFIX)|' tools/weft.pc.in > $(INST)/lib/pkgconfig/weft.pc
	@[ -n "$(DESTDIR)" ] || ldconfig 2> /dev/null || true

help:
	@sed -n 's/^#: //p' Makefile

clean: ; rm -rf build build-san weft

.PHONY: all clean fuzz tests demo check check-cuda install help
-include $(shell find $B -name '*.d' -type f 2>/dev/null)
