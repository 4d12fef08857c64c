/* The only file that asks the CPU. An instruction set is available only if the OS also saves its
 * registers. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "kernels/stream.h"

#define TP_ISA(ID, name) #name,
static const char *const isa_names[TP_ISA_COUNT] = {
#include "include/isas.def"
};
#undef TP_ISA

int tp_isa_count(void) { return TP_ISA_COUNT; }

const char *tp_isa_name(int isa) { return isa >= 0 && isa < TP_ISA_COUNT ? isa_names[isa] : NULL; }

int tp_isa_from_name(const char *name) {
    for (int i = 0; name && i < TP_ISA_COUNT; i++)
        if (strcmp(name, isa_names[i]) == 0) return i;
    return -1;
}

tp_stream_way tp_stream = {16384, 4096};

#if TP_X86
#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };

static unsigned leaf(unsigned number, unsigned sub, int reg) {
    unsigned r[4] = {0, 0, 0, 0};
    if (!__get_cpuid_count(number, sub, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) return 0;
    return r[reg];
}

static int bit(unsigned word, int n) { return (int)(word >> n & 1u); }

static unsigned saved_registers(void) {
    unsigned lo = 0, hi = 0;
    if (bit(leaf(1, 0, ECX), 27)) __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static int is_zen5(void) {
    const unsigned version = leaf(1, 0, EAX);
    const unsigned family = (version >> 8 & 15u) + (version >> 20 & 255u);
    return leaf(0, 0, ECX) == 0x444d4163u /* "cAMD" */ && family >= 26;
}

/* A distance of 0 is the line in use, so nothing is fetched into the L2 cache. */
__attribute__((constructor)) static void choose_stream(void) {
    if (is_zen5()) tp_stream = (tp_stream_way){0, 12288};
}

static const struct {
    const char *name;
    unsigned leaf, sub;
    int reg, bit;
    unsigned saved;
} features[] = {
    {"ssse3", 1, 0, ECX, 9, 0},         {"f16c", 1, 0, ECX, 29, 0x06},
    {"fma", 1, 0, ECX, 12, 0x06},       {"avx2", 7, 0, EBX, 5, 0x06},
    {"avxvnni", 7, 1, EAX, 4, 0x06},    {"avx512f", 7, 0, EBX, 16, 0xe6},
    {"avx512dq", 7, 0, EBX, 17, 0xe6},  {"avx512bw", 7, 0, EBX, 30, 0xe6},
    {"avx512vl", 7, 0, EBX, 31, 0xe6},  {"avx512vnni", 7, 0, ECX, 11, 0xe6},
    {"avx512vbmi", 7, 0, ECX, 1, 0xe6},
};

static int feature(const char *name) {
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (strcmp(features[i].name, name) == 0)
            return bit(leaf(features[i].leaf, features[i].sub, features[i].reg), features[i].bit) &&
                   (saved_registers() & features[i].saved) == features[i].saved;
    return 0;
}

static int detect(int isa) {
    switch (isa) {
        case TP_ISA_SCALAR: return 1;
        case TP_ISA_SSSE3: return feature("ssse3");
        case TP_ISA_AVX2: return feature("avx2") && feature("f16c");
#ifdef TP_AVXVNNI_AS_EVEX /* a build for tests: the same instructions, as AVX-512 encodes them */
        case TP_ISA_AVXVNNI:
            return feature("avx2") && feature("f16c") && feature("avx512vl") &&
                   feature("avx512vnni");
#else
        case TP_ISA_AVXVNNI: return feature("avx2") && feature("f16c") && feature("avxvnni");
#endif
        case TP_ISA_AVX512VNNI:
            return feature("avx2") && feature("f16c") && feature("avx512f") &&
                   feature("avx512bw") && feature("avx512vl") && feature("avx512dq") &&
                   feature("avx512vnni");
        default: return 0;
    }
}

size_t tp_cpu_description(char *buf, size_t size) {
    char text[512] = "";
    unsigned words[13] = {0};
    if (leaf(0x80000000u, 0, EAX) >= 0x80000004u)
        for (unsigned i = 0; i < 3; i++)
            for (int r = 0; r < 4; r++) words[4 * i + (unsigned)r] = leaf(0x80000002u + i, 0, r);
    const char *brand = (const char *)words;
    while (*brand == ' ') brand++;
    size_t used = (size_t)snprintf(text, sizeof text, "%s;", *brand ? brand : "x86-64");
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (feature(features[i].name))
            used += (size_t)snprintf(text + used, sizeof text - used, " %s", features[i].name);
    return (size_t)snprintf(buf, size, "%s", text);
}
#elif TP_ARM
#if defined(__APPLE__)
#include <sys/sysctl.h>

static int asks(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}
static int has_dotprod(void) { return asks("hw.optional.arm.FEAT_DotProd"); }
static int has_i8mm(void) { return has_dotprod() && asks("hw.optional.arm.FEAT_I8MM"); }
#else
#include <sys/auxv.h>

/* The bits are numbers, since old headers lack their names. */
static int has_dotprod(void) { return (int)(getauxval(AT_HWCAP) >> 20 & 1); }
static int has_i8mm(void) { return has_dotprod() && (getauxval(AT_HWCAP2) >> 13 & 1); }
#endif

static int detect(int isa) {
    switch (isa) {
        case TP_ISA_SCALAR:
        case TP_ISA_NEON: return 1;
        case TP_ISA_DOTPROD: return has_dotprod();
        case TP_ISA_I8MM: return has_i8mm();
        default: return 0;
    }
}

size_t tp_cpu_description(char *buf, size_t size) {
    return (size_t)snprintf(buf, size, "ARM 64-bit; neon%s%s", has_dotprod() ? " dotprod" : "",
                            has_i8mm() ? " i8mm" : "");
}
#else
/* A WebAssembly module is loaded only where all its instructions are available, so there is
 * nothing to ask. */
static int detect(int isa) { return isa == TP_ISA_SCALAR || (TP_WASM && isa == TP_ISA_SIMD128); }

size_t tp_cpu_description(char *buf, size_t size) {
    return (size_t)snprintf(buf, size,
                            TP_WASM ? "WebAssembly; simd128"
                                    : "neither x86-64 nor ARM 64-bit; scalar kernels only");
}
#endif

/* Asks once, since cpuid is slow in a virtual machine. Two threads that ask at the same time get
 * the same answer. */
int tp_cpu_has(int isa) {
    static atomic_uint available; /* bit i = ISA i; bit 31 = filled in */
    unsigned bits = atomic_load(&available);
    if (!bits) {
        for (int i = 0; i < TP_ISA_COUNT; i++) bits |= (unsigned)detect(i) << i;
        bits |= 1u << 31;
        atomic_store(&available, bits);
    }
    return (int)(bits >> isa & 1u);
}

int tp_isa_available(int isa) { return isa >= 0 && isa < TP_ISA_COUNT && tp_cpu_has(isa); }

int tp_best_isa(void) {
    int best = TP_ISA_SCALAR;
    for (int i = 0; i < TP_ISA_COUNT; i++)
        if (tp_cpu_has(i)) best = i;
    return best;
}
