/* Sums and products that do not wrap around: what is too large stays the largest number there is. */
#ifndef HESPER_BOUNDS_H
#define HESPER_BOUNDS_H

#include <stdint.h>

static inline uint64_t hesper_plus(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static inline uint64_t hesper_times(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

#endif
