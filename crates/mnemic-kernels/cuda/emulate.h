// Runs CUDA kernels on the CPU, for tests on machines without a GPU: the language, the intrinsics and a launcher.
// Included by common.cuh when the compiler is not nvcc. Every CUDA thread is a fiber; one OS thread runs them all.
#pragma once

#include <math.h>
#include <sys/mman.h>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#if !defined(__x86_64__) || defined(MNEMIC_UCONTEXT)
#ifndef MNEMIC_UCONTEXT
#define MNEMIC_UCONTEXT
#endif
#include <ucontext.h>
#endif

// ---------------------------------------------------------------------------------------------- the language

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __constant__ static
// One block runs at a time, so that one copy is enough; not so in cooperative launches: see DYNAMIC_SHARED.
#define __shared__ static
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define UNROLL

#define EXPORT(name) \
    [[maybe_unused]] static const ::mnemic_emulation::Register mnemic_register_##name{ \
        #name, ::mnemic_emulation::Kernel<&name>::call};
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::mnemic_emulation::dynamic_shared())

// ------------------------------------------------------------------------------------------------- the types

#define MNEMIC_VECTOR2(T, name, align) \
    struct alignas(align) name { \
        T x, y; \
    }; \
    inline name make_##name(T x, T y) { return {x, y}; }
#define MNEMIC_VECTOR4(T, name, align) \
    struct alignas(align) name { \
        T x, y, z, w; \
    }; \
    inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
MNEMIC_VECTOR2(float, float2, 8)
MNEMIC_VECTOR2(double, double2, 16)
MNEMIC_VECTOR2(int, int2, 8)
MNEMIC_VECTOR2(unsigned, uint2, 8)
MNEMIC_VECTOR4(float, float4, 16)
MNEMIC_VECTOR4(int, int4, 16)
MNEMIC_VECTOR4(unsigned, uint4, 16)
#undef MNEMIC_VECTOR2
#undef MNEMIC_VECTOR4

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

struct __half {
    unsigned short bits;
};
struct __nv_bfloat16 {
    unsigned short bits;
};

namespace mnemic_emulation {

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace mnemic_emulation

inline unsigned __float_as_uint(float x) { return mnemic_emulation::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return mnemic_emulation::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return mnemic_emulation::bits_as<float>(x); }
inline float __int_as_float(int x) { return mnemic_emulation::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return mnemic_emulation::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return mnemic_emulation::bits_as<double>(x); }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short x) { return {x}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return {x}; }

inline float __half2float(__half x) {
    const unsigned magnitude = x.bits & 0x7fffu, sign = (x.bits & 0x8000u) << 16;
    // Moving the exponent's bias by a product does normal numbers and subnormal ones alike, without error.
    const float value = __uint_as_float(magnitude << 13) * 0x1p112f;
    const unsigned bits = magnitude >= 0x7c00u ? 0x7f800000u | (magnitude << 13) : __float_as_uint(value);
    return __uint_as_float(bits | sign);
}

inline __half __float2half_rn(float x) {
    const unsigned bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
    unsigned result;
    if (magnitude > 0x7f800000u) {
        return {0x7fff};
    } else if (magnitude >= 0x477ff000u) {
        result = 0x7c00;  // 65520 and more round to infinity.
    } else if (magnitude < 0x38800000u) {
        // Subnormal: adding 0.5 leaves units of 2^-24 in the lowest bits, rounded to nearest even by the sum.
        result = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        result = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    }
    return {static_cast<unsigned short>(result | sign)};
}
inline __half __float2half(float x) { return __float2half_rn(x); }

inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }

// -------------------------------------------------------------------------------------------- the arithmetic

// Macros, since some C libraries declare functions of these names.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define rsqrtf(x) (1.0f / sqrtf(x))
#define rsqrt(x) (1.0 / sqrt(static_cast<double>(x)))

inline float __fdividef(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

#define MNEMIC_ORDER(T) \
    inline T max(T a, T b) { return a > b ? a : b; } \
    inline T min(T a, T b) { return a < b ? a : b; }
MNEMIC_ORDER(int)
MNEMIC_ORDER(unsigned)
MNEMIC_ORDER(long)
MNEMIC_ORDER(unsigned long)
MNEMIC_ORDER(long long)
MNEMIC_ORDER(unsigned long long)
#undef MNEMIC_ORDER
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    __extension__ typedef unsigned __int128 Wide;
    return static_cast<unsigned long long>(static_cast<Wide>(x) * y >> 64);
}

// ------------------------------------------------------------------------------------------------ the fibers

// Set for whichever thread runs.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace mnemic_emulation {

#ifdef MNEMIC_UCONTEXT
using Context = ucontext_t;
inline void swap(Context& from, Context& to) { swapcontext(&from, &to); }
inline void prepare(Context& context, char* low, char* high, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = low;
    context.uc_stack.ss_size = static_cast<size_t>(high - low);
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#else
struct Context {
    void* stack_pointer;
};
// Puts the registers that a function must keep on the stack, changes the stack, and takes them from the new one.
// Weak, because several objects may hold it, and so that no caller looks into it.
extern "C" __attribute__((naked, noinline, weak)) void mnemic_swap_stacks(void**, void*) {
    asm volatile(
        "pushq %rbp\n\t"
        "pushq %rbx\n\t"
        "pushq %r12\n\t"
        "pushq %r13\n\t"
        "pushq %r14\n\t"
        "pushq %r15\n\t"
        "movq %rsp, (%rdi)\n\t"
        "movq %rsi, %rsp\n\t"
        "popq %r15\n\t"
        "popq %r14\n\t"
        "popq %r13\n\t"
        "popq %r12\n\t"
        "popq %rbx\n\t"
        "popq %rbp\n\t"
        "popq %rcx\n\t"
        "jmp *%rcx");  // The processor would foresee another place for a return.
}
inline void swap(Context& from, Context& to) { mnemic_swap_stacks(&from.stack_pointer, to.stack_pointer); }
inline void prepare(Context& context, char*, char* high, void (*entry)()) {
    // Six registers, the address to go on at, and the place of a return address, which aligns the stack.
    void** words = reinterpret_cast<void**>(high) - 8;
    for (int i = 0; i < 8; ++i) words[i] = nullptr;
    words[6] = reinterpret_cast<void*>(entry);
    context.stack_pointer = words;
}
#endif

struct Fiber {
    Context context;
    char *low, *high;
};

// What a thread waits for.
enum class Wait { Nothing, Change, Reach, Turn, Never };
// What the lanes of a warp do together; lanes that meet for different things are a mistake.
enum Meeting { SYNC, SHUFFLE, VOTE, MMA_BF16, MMA_F16, MMA_TF32, MATRIX };

struct Block;

struct Warp {
    unsigned first, size, started;  // the threads
    unsigned live, arrived, generation;
    Meeting meeting;
    Block* block;
    // By the lowest bit of the generation: nobody reaches the one after the next before all have read.
    unsigned present[2];
    union {
        unsigned long long word;
        const void* pointer;
        unsigned words[6];
    } slots[2][32];
    double product[2][16][8];
    unsigned short matrices[2][4][8][8];
};

struct Block {
    uint3 index;
    bool reverse;
    char* shared;
    unsigned live, arrived, generation;
    unsigned yes[2], total[2];  // for votes at the barrier, by generation as above
};

// A cp.async on its way.
struct Copy {
    void* to;
    const void* from;
    bool valid;
    unsigned group;
};

struct Thread {
    uint3 index;
    unsigned lane;
    Warp* warp;
    Block* block;
    Fiber* fiber;
    bool done;
    Wait wait;
    const volatile unsigned* word;
    unsigned value;
    unsigned group;
    std::vector<Copy> copies;
};

struct Engine {
    Thread* running = nullptr;
    Warp* starting = nullptr;
    Fiber* fiber = nullptr;
    Context scheduler;
    const char* name = nullptr;
    void (*call)(void**) = nullptr;
    void** args = nullptr;
    size_t live = 0, blocks = 0;
    unsigned grid_arrived = 0, grid_generation = 0;
    bool turn = false;
    int error = 0;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<Block> all_blocks;
    std::deque<Fiber> fibers;
    size_t used = 0;  // of these, in this launch
    std::vector<Fiber*> idle;
};
// Not per OS thread: a launch holds the lock below, and fibers must not see the address of such a variable change.
inline Engine engine;
inline std::mutex engine_lock;

enum { OK = 0, UNKNOWN = 1, DEADLOCK = 2, MISUSE = 3 };
constexpr size_t STACK = 128 << 10, PAGE = 4096, MARGIN = 64;

inline void suspend() { swap(engine.fiber->context, engine.scheduler); }

inline void wait(Wait what, const volatile unsigned* word = nullptr, unsigned value = 0) {
    Thread& t = *engine.running;
    t.wait = what;
    t.word = word;
    t.value = value;
    suspend();
}

// Ends the launch with a message.
inline void misuse(const char* what) {
    std::fprintf(stderr, "emulated CUDA: %s: block (%u, %u, %u), thread (%u, %u, %u): %s\n", engine.name, blockIdx.x,
                 blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
    engine.error = MISUSE;
    wait(Wait::Never);
}

inline bool ready(const Thread& t) {
    switch (t.wait) {
        case Wait::Change: return *t.word != t.value;
        case Wait::Reach: return static_cast<int>(*t.word - t.value) >= 0;
        case Wait::Never: return false;
        default: return true;
    }
}

inline void become(Thread& t) {
    engine.running = &t;
    engine.fiber = t.fiber;
    threadIdx = t.index;
    blockIdx = t.block->index;
}

inline void resume(Thread& t) {
    t.wait = Wait::Nothing;
    become(t);
    swap(engine.scheduler, t.fiber->context);
}

inline void release(Warp& w) {
    w.arrived = 0;
    ++w.generation;
}

inline void release(Block& b) {
    const unsigned now = b.generation & 1;
    b.total[now] = b.arrived;
    b.yes[now ^ 1] = 0;
    b.arrived = 0;
    ++b.generation;
}

inline void release_grid() {
    engine.grid_arrived = 0;
    ++engine.grid_generation;
}

inline void land(Thread& t, unsigned groups) {
    size_t kept = 0;
    for (const Copy& copy : t.copies) {
        if (static_cast<int>(copy.group - groups) >= 0) {
            t.copies[kept++] = copy;
        } else if (copy.valid) {
            std::memcpy(copy.to, copy.from, 16);
        } else {
            std::memset(copy.to, 0, 16);
        }
    }
    t.copies.resize(kept);
}

inline void finish(Thread& t) {
    if (!t.copies.empty()) land(t, t.group + 1);
    t.done = true;
    // Who has ended is not waited for.
    Warp& w = *t.warp;
    if (--w.live != 0 && w.arrived == w.live) release(w);
    Block& b = *t.block;
    if (--b.live != 0 && b.arrived == b.live) release(b);
    if (--engine.live != 0 && engine.grid_arrived == engine.live) release_grid();
}

inline Thread& nth(const Warp& w, unsigned n) {
    return engine.threads[w.first + (w.block->reverse ? w.size - 1 - n : n)];
}

// Runs the threads of the warp that starts one after another, till one of them waits: then the scheduler takes
// another fiber for the rest.
inline void fiber_main() {
    for (;;) {
        Fiber* const self = engine.fiber;
        Warp& w = *engine.starting;
        while (w.started < w.size) {
            Thread& t = nth(w, w.started++);
            t.fiber = self;
            become(t);
            engine.call(engine.args);
            finish(t);
        }
        engine.idle.push_back(self);
        suspend();
    }
}

inline void grow_fibers() {
    constexpr size_t count = 64;
    void* memory = mmap(nullptr, STACK * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0);
    if (memory == MAP_FAILED) {
        std::fprintf(stderr, "emulated CUDA: no memory for stacks\n");
        std::abort();
    }
    for (size_t i = 0; i < count; ++i) {
        char* low = static_cast<char*>(memory) + i * STACK;
        // A page to stop an overflow; not for all, as a process can have only so many mappings.
        if (engine.fibers.size() < 4096) (void)mprotect(low, PAGE, PROT_NONE);
        engine.fibers.emplace_back();
        Fiber& fiber = engine.fibers.back();
        fiber.low = low + PAGE;
        // Not all at the same distance, or their hottest lines would share a few sets of the cache.
        fiber.high = low + STACK - engine.fibers.size() * 5 % 64 * 128;
    }
}

inline Fiber* take_fiber() {
    if (!engine.idle.empty()) {
        Fiber* fiber = engine.idle.back();
        engine.idle.pop_back();
        return fiber;
    }
    if (engine.used == engine.fibers.size()) grow_fibers();
    // Afresh, for an earlier launch may have run on another OS thread or ended in a deadlock.
    Fiber* fiber = &engine.fibers[engine.used++];
    prepare(fiber->context, fiber->low, fiber->high, fiber_main);
    return fiber;
}

// Runs a warp till all its threads have ended or wait for other warps. True if anything moved.
inline bool run_warp(Warp& w) {
    bool progress = false;
    while (w.started < w.size) {
        engine.starting = &w;
        engine.fiber = take_fiber();
        swap(engine.scheduler, engine.fiber->context);
        if (engine.error != 0) return true;
        progress = true;
    }
    for (bool moved = true; moved && w.live != 0;) {
        moved = false;
        for (unsigned n = 0; n < w.size; ++n) {
            Thread& t = nth(w, n);
            if (t.done || !ready(t)) continue;
            const bool had_turn = t.wait == Wait::Turn;
            resume(t);
            if (engine.error != 0) return true;
            const bool spins = !t.done && t.wait == Wait::Turn;
            engine.turn |= spins;
            moved |= !(had_turn && spins);
        }
        progress |= moved;
    }
    return progress;
}

inline void reset(Block& b, Warp* warps, unsigned count, unsigned threads) {
    b.live = threads;
    b.arrived = 0;
    b.yes[0] = b.yes[1] = 0;
    for (unsigned i = 0; i < count; ++i) {
        Warp& w = warps[i];
        w.started = w.arrived = 0;
        w.live = w.size;
        for (unsigned n = 0; n < w.size; ++n) {
            Thread& t = engine.threads[w.first + n];
            t.done = false;
            t.wait = Wait::Nothing;
        }
    }
}

// Runs the blocks that exist at this time to their end.
inline int run_blocks(size_t threads) {
    engine.live = threads;
    for (unsigned idle = 0; engine.live != 0;) {
        bool progress = false;
        engine.turn = false;
        const size_t count = engine.warps.size();
        // Odd blocks go backwards, so that results which hang on the order of threads, for want of a barrier, show.
        const bool reverse = engine.all_blocks.size() == 1 && engine.all_blocks[0].reverse;
        for (size_t i = 0; i < count; ++i) {
            progress |= run_warp(engine.warps[reverse ? count - 1 - i : i]);
            if (engine.error != 0) return engine.error;
        }
        // Whoever spins may see a change that no counter here shows; but not for ever.
        idle = progress ? 0 : idle + 1;
        if (idle > (engine.turn ? 10000u : 0u)) return DEADLOCK;
    }
    return OK;
}

inline void fill_shared(char* shared, size_t bytes) {
    std::memset(shared, 0xff, bytes);  // NaN in every type
    std::memset(shared + bytes, 0xa5, MARGIN);
}

inline int check_shared(const Block& b, size_t bytes) {
    for (size_t i = 0; i < MARGIN; ++i) {
        if (static_cast<unsigned char>(b.shared[bytes + i]) == 0xa5) continue;
        std::fprintf(stderr, "emulated CUDA: %s: block (%u, %u, %u) wrote past its %zu bytes of shared memory\n",
                     engine.name, b.index.x, b.index.y, b.index.z, bytes);
        return MISUSE;
    }
    return OK;
}

inline int launch(const unsigned grid[3], const unsigned block[3], size_t shared_bytes, bool cooperative) {
    const size_t per_block = static_cast<size_t>(block[0]) * block[1] * block[2];
    if (per_block < 1 || per_block > 1024 || block[2] > 64 || grid[0] < 1 || grid[1] < 1 || grid[2] < 1 ||
        grid[0] > INT_MAX || grid[1] > 65535 || grid[2] > 65535 || shared_bytes > (227 << 10)) {
        std::fprintf(stderr, "emulated CUDA: %s: no device takes this launch: (%u, %u, %u) x (%u, %u, %u), %zu bytes\n",
                     engine.name, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared_bytes);
        return MISUSE;
    }
    blockDim = dim3{block[0], block[1], block[2]};
    gridDim = dim3{grid[0], grid[1], grid[2]};
    const size_t blocks = static_cast<size_t>(grid[0]) * grid[1] * grid[2], held = cooperative ? blocks : 1;
    const unsigned warps = static_cast<unsigned>((per_block + 31) / 32);
    engine.blocks = blocks;
    engine.error = 0;
    engine.grid_arrived = 0;
    engine.all_blocks.assign(held, Block{});
    engine.warps.resize(held * warps);
    engine.threads.resize(held * per_block);
    std::vector<char> memory(held * (shared_bytes + MARGIN + 256));
    for (size_t i = 0; i < held; ++i) {
        Block& b = engine.all_blocks[i];
        const size_t at = reinterpret_cast<uintptr_t>(&memory[i * (shared_bytes + MARGIN + 256)]);
        b.shared = reinterpret_cast<char*>((at + 127) / 128 * 128);
        for (unsigned j = 0; j < warps; ++j) {
            Warp& w = engine.warps[i * warps + j];
            w.block = &b;
            w.first = static_cast<unsigned>(i * per_block + j * 32);
            w.size = static_cast<unsigned>(per_block - j * 32 < 32 ? per_block - j * 32 : 32);
            for (unsigned lane = 0; lane < w.size; ++lane) {
                Thread& t = engine.threads[w.first + lane];
                const unsigned n = j * 32 + lane;
                t.index = {n % block[0], n / block[0] % block[1], n / block[0] / block[1]};
                t.lane = lane;
                t.warp = &w;
                t.block = &b;
                t.copies.clear();
            }
        }
    }
    engine.idle.clear();
    engine.used = 0;

    static const bool backwards = std::getenv("MNEMIC_EMULATE_REVERSE") != nullptr;
    for (size_t i = 0; i < blocks; i += held) {
        for (size_t j = 0; j < held; ++j) {
            Block& b = engine.all_blocks[j];
            const size_t n = i + j;
            b.index = {static_cast<unsigned>(n % grid[0]), static_cast<unsigned>(n / grid[0] % grid[1]),
                       static_cast<unsigned>(n / grid[0] / grid[1])};
            b.reverse = (n % 2 == 1) != backwards;
            fill_shared(b.shared, shared_bytes);
            reset(b, &engine.warps[j * warps], warps, static_cast<unsigned>(per_block));
        }
        if (const int code = run_blocks(held * per_block)) return code;
        for (const Block& b : engine.all_blocks) {
            if (const int code = check_shared(b, shared_bytes)) return code;
        }
    }
    return OK;
}

// ---------------------------------------------------------------------------------------------- the registry

// One for all objects. A linker takes from a library only what is asked for, and nobody asks for a kernel: include all
// files of kernels into one source, whose object mnemic_emulate brings in.
inline std::map<std::string, void (*)(void**)>& registry() {
    static std::map<std::string, void (*)(void**)> kernels;
    return kernels;
}

struct Register {
    Register(const char* name, void (*call)(void**)) { registry()[name] = call; }
};

template <auto F>
struct Kernel;
template <class... A, void (*F)(A...)>
struct Kernel<F> {
    static void call(void** args) { call(args, std::index_sequence_for<A...>()); }
    template <size_t... I>
    static void call([[maybe_unused]] void** args, std::index_sequence<I...>) {
        F(*static_cast<A*>(args[I])...);
    }
};

inline void* dynamic_shared() { return engine.running->block->shared; }

// ------------------------------------------------------------------------------------------------ meetings

// All living lanes of a warp come; the last one does the work for all. Returns the parity under which to read.
template <class Work>
inline unsigned meet(Meeting meeting, Work work) {
    Thread& t = *engine.running;
    Warp& w = *t.warp;
    const unsigned generation = w.generation, parity = generation & 1;
    if (w.arrived == 0) {
        w.meeting = meeting;
        w.present[parity] = 0;
    } else if (w.meeting != meeting) {
        misuse("the lanes of a warp meet for different operations");
    }
    w.present[parity] |= 1u << t.lane;
    if (++w.arrived == w.live) {
        work(parity);
        release(w);
    } else {
        wait(Wait::Change, &w.generation, generation);
    }
    return parity;
}
inline unsigned meet(Meeting meeting) {
    return meet(meeting, [](unsigned) {});
}

inline void whole_warp(const Warp& w, unsigned parity) {
    if (w.present[parity] != ~0u) misuse("needs all 32 lanes of the warp");
}

template <class T>
inline T shuffle(T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "one word");
    const Thread& t = *engine.running;
    Warp& w = *t.warp;
    std::memcpy(&w.slots[w.generation & 1][t.lane].word, &value, sizeof value);
    const unsigned parity = meet(SHUFFLE);
    // Nobody knows what a missing lane gives: NaN here.
    if (w.present[parity] >> source & 1) {
        std::memcpy(&value, &w.slots[parity][source].word, sizeof value);
    } else {
        std::memset(&value, 0xff, sizeof value);
    }
    return value;
}

inline unsigned vote(bool yes) {
    const Thread& t = *engine.running;
    Warp& w = *t.warp;
    w.slots[w.generation & 1][t.lane].word = yes;
    const unsigned parity = meet(VOTE);
    unsigned result = 0;
    for (unsigned i = 0; i < w.size; ++i) {
        if (w.present[parity] >> i & 1) result |= static_cast<unsigned>(w.slots[parity][i].word) << i;
    }
    return result;
}

// The number of threads at the barrier that said yes, and of all there.
struct Votes {
    unsigned yes, total;
};
inline Votes block_barrier(bool yes) {
    Block& b = *engine.running->block;
    const unsigned generation = b.generation, parity = generation & 1;
    b.yes[parity] += yes;
    if (++b.arrived == b.live) {
        release(b);
    } else {
        wait(Wait::Change, &b.generation, generation);
    }
    return {b.yes[parity], b.total[parity]};
}

// The layout of fragments is that of PTX: four lanes make a group, which holds rows `group` and `group + 8` of A and
// of the sum, and column `group` of B. A register holds two neighbours along k of 16 bits each, or one TF32.
template <class Decode>
inline void multiply(Warp& w, unsigned parity, int per_register, Decode decode) {
    const int half = 4 * per_register;
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const unsigned* words = w.slots[parity][lane].words;
        const int group = lane / 4, in_group = lane % 4;
        for (int i = 0; i < 6; ++i) {
            for (int e = 0; e < per_register; ++e) {
                const float value = decode(words[i], e);
                const int k = in_group * per_register + e;
                if (i < 4) {
                    a[group + i % 2 * 8][k + i / 2 * half] = value;
                } else {
                    b[k + (i - 4) * half][group] = value;
                }
            }
        }
    }
    for (int row = 0; row < 16; ++row) {
        double sum[8] = {};
        for (int k = 0; k < 2 * half; ++k) {
            for (int column = 0; column < 8; ++column) sum[column] += static_cast<double>(a[row][k]) * b[k][column];
        }
        std::memcpy(w.product[parity][row], sum, sizeof sum);
    }
}

template <class Decode>
inline void mma(Meeting meeting, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int per_register,
                Decode decode) {
    const Thread& t = *engine.running;
    Warp& w = *t.warp;
    unsigned* words = w.slots[w.generation & 1][t.lane].words;
    std::memcpy(words, a, sizeof a);
    std::memcpy(words + 4, b, sizeof b);
    const unsigned parity = meet(meeting, [&](unsigned p) { multiply(w, p, per_register, decode); });
    whole_warp(w, parity);
    for (unsigned i = 0; i < 4; ++i) {
        d[i] = static_cast<float>(d[i] + w.product[parity][t.lane / 4 + i / 2 * 8][t.lane % 4 * 2 + i % 2]);
    }
}

template <int N>
inline void load_matrices(unsigned (&r)[N], const void* row, bool transposed) {
    const Thread& t = *engine.running;
    Warp& w = *t.warp;
    if (t.lane < 8 * N && reinterpret_cast<uintptr_t>(row) % 16 != 0) misuse("ldmatrix needs rows aligned to 16 bytes");
    w.slots[w.generation & 1][t.lane].pointer = row;
    // Read for all at once, as the device does.
    const unsigned parity = meet(MATRIX, [&](unsigned p) {
        if (w.present[p] != ~0u) return;
        for (int i = 0; i < 8 * N; ++i) std::memcpy(w.matrices[p][i / 8][i % 8], w.slots[p][i].pointer, 16);
    });
    whole_warp(w, parity);
    for (int i = 0; i < N; ++i) {
        const auto& m = w.matrices[parity][i];
        const unsigned row_of = t.lane / 4, column = t.lane % 4 * 2;
        const unsigned low = transposed ? m[column][row_of] : m[row_of][column];
        const unsigned high = transposed ? m[column + 1][row_of] : m[row_of][column + 1];
        r[i] = low | high << 16;
    }
}

inline void copy_async(void* to, const void* from, bool valid) {
    if ((reinterpret_cast<uintptr_t>(to) | (valid ? reinterpret_cast<uintptr_t>(from) : 0)) % 16 != 0) {
        misuse("cp.async needs addresses aligned to 16 bytes");
    }
    // Till it is waited for, nobody may count on the old content or the new.
    std::memset(to, 0xff, 16);
    engine.running->copies.push_back({to, from, valid, engine.running->group});
}

}  // namespace mnemic_emulation

// -------------------------------------------------------------------------------------------- the intrinsics

inline void __syncthreads() { mnemic_emulation::block_barrier(false); }
inline int __syncthreads_or(int yes) { return mnemic_emulation::block_barrier(yes != 0).yes != 0; }
inline int __syncthreads_count(int yes) { return static_cast<int>(mnemic_emulation::block_barrier(yes != 0).yes); }
inline int __syncthreads_and(int yes) {
    const mnemic_emulation::Votes votes = mnemic_emulation::block_barrier(yes != 0);
    return votes.yes == votes.total;
}
inline void __syncwarp(unsigned = ~0u) { mnemic_emulation::meet(mnemic_emulation::SYNC); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __trap() { mnemic_emulation::misuse("__trap()"); }

// The width cuts a warp into parts, which are not left towards their end.
template <class T>
inline T __shfl_sync(unsigned, T value, int source, int width = 32) {
    const unsigned lane = mnemic_emulation::engine.running->lane, size = static_cast<unsigned>(width);
    return mnemic_emulation::shuffle(value, lane / size * size + static_cast<unsigned>(source) % size);
}
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int lanes, int width = 32) {
    const unsigned lane = mnemic_emulation::engine.running->lane, size = static_cast<unsigned>(width);
    const unsigned source = lane ^ static_cast<unsigned>(lanes);
    return mnemic_emulation::shuffle(value, source < lane / size * size + size ? source : lane);
}
template <class T>
inline T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
    const unsigned lane = mnemic_emulation::engine.running->lane, size = static_cast<unsigned>(width);
    return mnemic_emulation::shuffle(value, lane % size + delta < size ? lane + delta : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
    const unsigned lane = mnemic_emulation::engine.running->lane, size = static_cast<unsigned>(width);
    return mnemic_emulation::shuffle(value, lane % size >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned, int yes) { return mnemic_emulation::vote(yes != 0); }
inline int __any_sync(unsigned, int yes) { return mnemic_emulation::vote(yes != 0) != 0; }
inline int __all_sync(unsigned, int yes) { return mnemic_emulation::vote(yes == 0) == 0; }

template <class T>
inline T __ldg(const T* from) {
    return *from;
}

#define MNEMIC_ATOMICS(T) \
    inline T atomicExch(T* at, T value) { \
        const T old = *at; \
        *at = value; \
        return old; \
    } \
    inline T atomicAdd(T* at, T value) { \
        return atomicExch(at, static_cast<T>(static_cast<unsigned>(*at) + static_cast<unsigned>(value))); \
    } \
    inline T atomicCAS(T* at, T expected, T value) { return atomicExch(at, *at == expected ? value : *at); }
MNEMIC_ATOMICS(int)
MNEMIC_ATOMICS(unsigned)
#undef MNEMIC_ATOMICS

// --------------------------------------------------------------------- the wrappers that common.cuh has natively

inline void spin_pause() { mnemic_emulation::wait(mnemic_emulation::Wait::Turn); }

inline void grid_sync() {
    mnemic_emulation::Engine& e = mnemic_emulation::engine;
    if (e.all_blocks.size() != e.blocks) mnemic_emulation::misuse("grid_sync() needs a cooperative launch");
    const unsigned generation = e.grid_generation;
    if (++e.grid_arrived == e.live) {
        mnemic_emulation::release_grid();
    } else {
        mnemic_emulation::wait(mnemic_emulation::Wait::Change, &e.grid_generation, generation);
    }
}

inline void grid_barrier(unsigned* counter, unsigned expected_total) {
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
        atomicAdd(counter, 1u);
        mnemic_emulation::wait(mnemic_emulation::Wait::Reach, counter, expected_total);
    }
    __syncthreads();
}

inline unsigned to_tf32(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) >= 0x7f800000u) return bits;
    return (bits + 0x1000u) & 0xffffe000u;
}

inline void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], __nv_bfloat16) {
    mnemic_emulation::mma(mnemic_emulation::MMA_BF16, d, a, b, 2, [](unsigned word, int e) {
        return __bfloat162float({static_cast<unsigned short>(word >> 16 * e)});
    });
}
inline void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], __half) {
    mnemic_emulation::mma(mnemic_emulation::MMA_F16, d, a, b, 2, [](unsigned word, int e) {
        return __half2float({static_cast<unsigned short>(word >> 16 * e)});
    });
}
inline void mma_16x8x8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    // The device leaves the lowest 13 bits out.
    mnemic_emulation::mma(mnemic_emulation::MMA_TF32, d, a, b, 1,
                          [](unsigned word, int) { return __uint_as_float(word & 0xffffe000u); });
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* row) { mnemic_emulation::load_matrices(r, row, false); }
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { mnemic_emulation::load_matrices(r, row, true); }
inline void ldmatrix_x2(unsigned (&r)[2], const void* row) { mnemic_emulation::load_matrices(r, row, false); }
inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) { mnemic_emulation::load_matrices(r, row, true); }

inline void cp_async_16(void* shared, const void* global, bool valid) {
    mnemic_emulation::copy_async(shared, global, valid);
}
inline void cp_async_commit() { ++mnemic_emulation::engine.running->group; }
template <int N>
inline void cp_async_wait() {
    mnemic_emulation::Thread& t = *mnemic_emulation::engine.running;
    mnemic_emulation::land(t, t.group - N);
}

// ---------------------------------------------------------------------------------------------- the launcher

// Launches a kernel by name. 0: done. 1: no such kernel. 2: its threads wait for ever. 3: misuse, told on stderr.
extern "C" __attribute__((weak, used)) int mnemic_emulate(const char* name, const unsigned grid[3],
                                                          const unsigned block[3], size_t shared_bytes, void** args,
                                                          int cooperative) {
    using namespace mnemic_emulation;
    const std::lock_guard<std::mutex> lock(engine_lock);
    const auto found = registry().find(name);
    if (found == registry().end()) return UNKNOWN;
    engine.name = found->first.c_str();
    engine.call = found->second;
    engine.args = args;
    return launch(grid, block, shared_bytes, cooperative != 0);
}
