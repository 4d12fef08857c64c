# Builds runtime/libtritpack.so and runs the C tests. Included by the top-level Makefile; stands alone too:
#   make -f runtime/runtime.mk lib c-test
# Paths are relative to the repository root. BUILD=dir puts objects elsewhere. CC, CFLAGS, CPPFLAGS and LDFLAGS are yours;
# whatever changes is rebuilt, and several makes may run at once. QUIET=1 prints no line per file.

BUILD ?= build
CC ?= cc
CFLAGS ?=
CPPFLAGS ?=
LDFLAGS ?=
SANITIZERS ?= -fsanitize=address,undefined -fno-sanitize-recover=all
# What runs the C tests of another machine: RUN_TEST="qemu-aarch64-static -L /usr/aarch64-linux-gnu", or, of wasm32-wasi, "node tests/c/wasi.mjs"
RUN_TEST ?=

TP_MACHINE := $(shell $(CC) -dumpmachine)
tp_wasm := $(filter wasm32-%,$(TP_MACHINE))
TP_NAME := libtritpack.$(if $(findstring darwin,$(TP_MACHINE))$(findstring macos,$(TP_MACHINE)),dylib,so)
TP_LIB := runtime/$(TP_NAME)

# Warnings are errors in tests and CI, not where somebody installs with a compiler that we have never seen. WebAssembly has neither
# threads nor the floating-point exceptions that clang 14 takes for asked for. A Zen 5 runs a loop of dot products at up to 0.7 of its
# speed if it begins in the middle of a cache line.
TP_CFLAGS := -std=gnu11 -O3 -falign-loops=64 -Wall -Wextra -Wno-pass-failed -fvisibility=hidden $(if $(tp_wasm),-Wno-unsupported-floating-point-opt,-fPIC -pthread)
# The tests run AVX-VNNI kernels on CPUs that have their instructions in AVX-512 only.
TP_TEST_CFLAGS := $(TP_CFLAGS) -Werror -DTP_AVXVNNI_AS_EVEX -O1 -g -fno-omit-frame-pointer $(SANITIZERS)
# Behind CFLAGS, since every operation rounds as written: no user's flag may change a bit. Those that also link start-up
# code which changes the rounding of the whole process never reach the linker.
TP_FLOAT_CFLAGS := -fno-fast-math -fno-unsafe-math-optimizations -fno-associative-math -fno-reciprocal-math \
	-fno-finite-math-only -fsigned-zeros -fno-math-errno -ffp-contract=off
tp_link_flags = $(filter-out -Ofast -ffast-math -funsafe-math-optimizations,$(CFLAGS) $(LDFLAGS))

# ISA flags, for kernel files named *_ISA.c and nothing else.
TP_FLAGS_avx2 := -mavx2 -mf16c
TP_FLAGS_avx512vnni := -mavx2 -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
TP_FLAGS_ssse3 := -mssse3
TP_FLAGS_avxvnni := -mavx2 -mf16c
TP_FLAGS_dotprod := -march=armv8.2-a+dotprod
TP_FLAGS_i8mm := -march=armv8.2-a+dotprod+i8mm
TP_FLAGS_simd128 := -msimd128
TP_X86_ISAS := ssse3 avx2 avxvnni avx512vnni
TP_ARM_ISAS := neon dotprod i8mm
TP_ISAS := scalar $(if $(filter x86_64-% amd64-%,$(TP_MACHINE)),$(TP_X86_ISAS)) $(if $(filter aarch64% arm64%,$(TP_MACHINE)),$(TP_ARM_ISAS)) \
	$(if $(tp_wasm),simd128)
tp_isa_flags = $(TP_FLAGS_$(lastword $(subst _, ,$(basename $(notdir $1)))))

# An assembler of before 2021 does not know AVX-VNNI: the library is then built without it.
tp_knows_vex := $(if $(findstring x86_64,$(TP_MACHINE)),$(shell echo '__asm__("{vex} vpdpbusd %ymm0, %ymm1, %ymm2");' | \
	$(CC) -x c -c -o /dev/null - 2>/dev/null && echo yes))
ifeq ($(tp_knows_vex),)
TP_ISAS := $(filter-out avxvnni,$(TP_ISAS))
TP_CFLAGS += -DTP_NO_AVXVNNI
endif

TP_SOURCES := $(sort $(wildcard runtime/csrc/*.c runtime/csrc/selftest/*.c) $(foreach isa,$(TP_ISAS),$(wildcard runtime/csrc/kernels/*/*_$(isa).c)))
TP_OBJECTS := $(TP_SOURCES:%.c=$(BUILD)/%.o)
TP_TEST_OBJECTS := $(TP_SOURCES:%.c=$(BUILD)/asan/%.o)
TP_TESTS := $(patsubst tests/c/%.c,$(BUILD)/asan/%,$(wildcard tests/c/test_*.c))
TP_FUZZERS := $(patsubst tests/fuzz/c/%.c,$(BUILD)/asan/%,$(wildcard tests/fuzz/c/fuzz_*.c))
# Everything built depends on these: a file that changes when the flags or the list of sources do, and this one.
TP_RULES := $(BUILD)/flags runtime/runtime.mk

# What was asked for, as one shell word, to compare with last time.
tp_comma := ,
tp_quote = '$(subst ','\'',$1)'
TP_ASKED = $(CC) | $(TP_MACHINE) | $(CPPFLAGS) | $(CFLAGS) | $(LDFLAGS) | $(SANITIZERS) | $(TP_SOURCES)

# Everything is written under a name of its process ($$$$ is the shell's id) and then renamed.
tp_temporary = $@.$$$$.tmp
tp_compile = $(CC) $(CPPFLAGS) $1 $(call tp_isa_flags,$<) $(CFLAGS) $(TP_FLOAT_CFLAGS) -MMD -MP -MT $@ -MF $(tp_temporary).d -o $(tp_temporary)
tp_say = $(if $(QUIET),:,echo "  $1" >&2)
tp_rename = mv -f $(tp_temporary) $@
tp_rename_both = mv -f $(tp_temporary).d $(basename $@).d && $(tp_rename)

.PHONY: lib c-test fuzzers tp-always
.SECONDARY: $(TP_TEST_OBJECTS)

lib: $(BUILD)/$(TP_NAME) ## Build the C library, runtime/libtritpack
	@cmp -s $< $(TP_LIB) || { cp $< runtime/.$$$$.$(TP_NAME) && mv -f runtime/.$$$$.$(TP_NAME) $(TP_LIB); }

$(BUILD)/flags: tp-always
	@mkdir -p $(@D)
	@printf '%s\n' $(call tp_quote,$(TP_ASKED)) > $(tp_temporary); \
		if cmp -s $(tp_temporary) $@; then rm -f $(tp_temporary); else $(tp_rename); fi

$(BUILD)/$(TP_NAME): $(TP_OBJECTS) $(TP_RULES)
	@$(call tp_say,link $@)
	@$(CC) $(TP_CFLAGS) $(tp_link_flags) -shared -o $(tp_temporary) $(TP_OBJECTS) -lm && $(tp_rename)

$(BUILD)/runtime/%.o: runtime/%.c $(TP_RULES)
	@mkdir -p $(@D)
	@$(call tp_say,cc $<)
	@$(call tp_compile,$(TP_CFLAGS)) -c $< && $(tp_rename_both)

$(BUILD)/asan/runtime/%.o: runtime/%.c $(TP_RULES)
	@mkdir -p $(@D)
	@$(call tp_say,cc (sanitizers) $<)
	@$(call tp_compile,$(TP_TEST_CFLAGS)) -c $< && $(tp_rename_both)

$(BUILD)/asan/test_%: tests/c/test_%.c $(TP_TEST_OBJECTS) $(TP_RULES)
	@mkdir -p $(@D)
	@$(call tp_say,cc (sanitizers) $<)
	@$(call tp_compile,$(TP_TEST_CFLAGS)) -I. $< $(TP_TEST_OBJECTS) $(LDFLAGS) -lm && $(tp_rename_both)

# Fuzzers of the library (tests/fuzz/README.md): CC has to be a clang with libFuzzer, SANITIZERS has to name fuzzer-no-link.
fuzzers: $(TP_FUZZERS)

$(BUILD)/asan/fuzz_%: tests/fuzz/c/fuzz_%.c $(TP_TEST_OBJECTS) $(TP_RULES)
	@mkdir -p $(@D)
	@echo "  cc (fuzzer) $<" >&2
	@$(call tp_compile,$(TP_TEST_CFLAGS)) -fsanitize=fuzzer -I. $< $(TP_TEST_OBJECTS) $(LDFLAGS) -lm && $(tp_rename_both)

# Runs a dumped model where there is no Python.
$(BUILD)/run_dump: tests/c/run_dump.c $(TP_OBJECTS) $(TP_RULES)
	@mkdir -p $(@D)
	@$(call tp_compile,$(TP_CFLAGS)) -I. $< $(TP_OBJECTS) $(LDFLAGS) -lm && $(tp_rename_both)

# The module of the page that `tritpack web` writes. Its memory is JavaScript's, so that its size is known before it is made; with
# -matomics in CFLAGS it is shared. wasi-libc was not built for that, which is well: threads only run kernels, which call memcpy at most.
TP_WEB_EXPORTS := malloc aligned_alloc free __stack_pointer __heap_base $(if $(findstring -matomics,$(CFLAGS)),tp_pool_work) tp_abi_version tp_status_text \
	tp_error_place tp_best_isa tp_isa_name tp_model_new tp_model_free tp_session_new tp_session_free tp_session_kernels tp_eval tp_eval_begin tp_eval_layers tp_rewind tp_n_past
TP_WEB_FLAGS := -mexec-model=reactor -Wl,--import-memory,--stack-first,-z,stack-size=1048576,--strip-all,--no-check-features $(TP_WEB_EXPORTS:%=-Wl,--export=%) \
	$(if $(findstring -matomics,$(CFLAGS)),-Wl$(tp_comma)--shared-memory$(tp_comma)--max-memory=4294967296)
$(BUILD)/tritpack.wasm: $(TP_OBJECTS) $(TP_RULES)
	@$(call tp_say,link $@)
	@$(CC) $(tp_link_flags) $(TP_WEB_FLAGS) -o $(tp_temporary) $(TP_OBJECTS) -lm && $(tp_rename)

c-test: $(TP_TESTS) ## Run the C tests under AddressSanitizer and UBSan
	@set -e; for t in $(TP_TESTS); do echo "$$t"; $(RUN_TEST) $$t; done

-include $(TP_OBJECTS:.o=.d) $(TP_TEST_OBJECTS:.o=.d) $(TP_TESTS:=.d) $(TP_FUZZERS:=.d)
