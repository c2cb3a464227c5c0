// The random streams of rng.rs: Philox4x32-10 (Salmon et al. 2011).
#pragma once
#include "common.cuh"

// Block `counter` of the stream `stream` of `seed`: four independent words.
__device__ __forceinline__ uint4 philox(unsigned long long seed, unsigned long long stream,
                                        unsigned long long counter) {
    uint4 x = make_uint4(static_cast<unsigned>(counter), static_cast<unsigned>(counter >> 32),
                         static_cast<unsigned>(stream), static_cast<unsigned>(stream >> 32));
    unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
    UNROLL
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, x.x), low0 = 0xD2511F53u * x.x;
        const unsigned high1 = __umulhi(0xCD9E8D57u, x.z), low1 = 0xCD9E8D57u * x.z;
        x = make_uint4(high1 ^ x.y ^ k0, low1, high0 ^ x.w ^ k1, low0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return x;
}
