# Builds runtime/libtritpack.so and runs the C tests. Included by the top-level Makefile; stands alone too:
#   make -f runtime/runtime.mk lib c-test
# Paths are relative to the repository root. BUILD=dir puts objects elsewhere.

BUILD ?= build
CC ?= cc
CFLAGS ?=
CPPFLAGS ?=
LDFLAGS ?=

TP_MACHINE := $(shell $(CC) -dumpmachine)
TP_LIB := runtime/libtritpack.$(if $(findstring darwin,$(TP_MACHINE)),dylib,so)

TP_CFLAGS := -std=gnu11 -O3 -ffp-contract=off -fno-math-errno -Wall -Wextra -Werror -fvisibility=hidden -fPIC -pthread
TP_TEST_CFLAGS := $(TP_CFLAGS) -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

# ISA flags, for kernel files named *_ISA.c and nothing else.
TP_FLAGS_avx2 := -mavx2 -mf16c
TP_FLAGS_avx512vnni := -mavx2 -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
TP_X86_ISAS := avx2 avx512vnni
TP_ISAS := scalar $(if $(filter x86_64-% amd64-%,$(TP_MACHINE)),$(TP_X86_ISAS))
tp_isa_flags = $(TP_FLAGS_$(lastword $(subst _, ,$(basename $(notdir $1)))))

TP_SOURCES := $(sort $(wildcard runtime/*.c) $(foreach isa,$(TP_ISAS),$(wildcard runtime/kernels/*/*_$(isa).c)))
TP_OBJECTS := $(TP_SOURCES:%.c=$(BUILD)/%.o)
TP_TEST_OBJECTS := $(TP_SOURCES:%.c=$(BUILD)/asan/%.o)
TP_TESTS := $(patsubst tests/c/%.c,$(BUILD)/asan/%,$(wildcard tests/c/test_*.c))

.PHONY: lib c-test
.SECONDARY: $(TP_TEST_OBJECTS)

lib: $(TP_LIB) ## build the C library, runtime/libtritpack

$(TP_LIB): $(TP_OBJECTS)
	$(CC) $(TP_CFLAGS) $(CFLAGS) -shared $(LDFLAGS) -o $@.tmp $^
	mv $@.tmp $@

$(BUILD)/runtime/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(TP_CFLAGS) $(call tp_isa_flags,$<) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/asan/runtime/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(TP_TEST_CFLAGS) $(call tp_isa_flags,$<) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/asan/test_%: tests/c/test_%.c $(TP_TEST_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(TP_TEST_CFLAGS) $(CFLAGS) -MMD -MP -I. $(LDFLAGS) -o $@ $< $(TP_TEST_OBJECTS) -lm

c-test: $(TP_TESTS) ## run the C tests under AddressSanitizer and UBSan
	@set -e; for t in $(TP_TESTS); do echo "$$t"; $$t; done

-include $(TP_OBJECTS:.o=.d) $(TP_TEST_OBJECTS:.o=.d) $(TP_TESTS:=.d)
